#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "comm/world.hpp"
#include "store/columns.hpp"
#include "store/writer.hpp"

namespace astroclip::store {

// One part while it is written: a parallel HDF5 file under a temporary name. Rows are collected until whole
// chunks of a column are there (of all ranks together), and only those are written: a chunk is then written
// once, and small columns rarely. When that happens depends on the numbers of rows alone, not on who holds
// them, so that the bytes do not depend on the ranks.
class PartFile {
public:
    // Collective; `most_rows`: objects of the plan in this part.
    PartFile(const comm::World& world, const Schema& schema, const Request& request,
             const std::string& final_path, std::uint64_t most_rows);
    ~PartFile();  // collective, unless writing failed; removes what was not published

    // Collective. This rank's rows become rows [first, first + rows.size()) of the part; `total`: rows of all
    // ranks up to and with this turn.
    void append(const Rows& rows, std::uint64_t first, std::uint64_t total);

    // Collective. Writes the rest and the rejects (known to rank 0), closes, reads everything back
    // (`verify`), and renames. Returns the file's entry for a manifest.
    nlohmann::json publish(const std::vector<Reject>& rejects, bool verify);

    std::uint64_t rows() const { return total_; }
    // Collective. Hash of each column over all rows; it does not depend on their order of arrival.
    nlohmann::json column_hashes() const;

private:
    struct Block {
        std::uint64_t first = 0, count = 0;
    };
    struct Pending {
        hdf5::Handle dataset;
        std::uint64_t chunk = 1;      // rows
        std::uint64_t written = 0;    // rows, over all ranks
        std::vector<Block> blocks{};  // this rank's rows that wait, in order
        std::vector<char> bytes{};
        std::uint64_t hash = 0;  // sum over this rank's rows
    };

    void create(const Request& request, std::uint64_t most_rows);
    void write_up_to(const Column& column, Pending& pending, std::uint64_t end);
    void add_to(const Column& column, Pending& pending, const std::vector<char>& bytes, std::uint64_t first,
                std::uint64_t count);
    void close(const std::vector<Reject>& rejects);
    void agree(const std::string& failure);
    void abandon();
    void compare_with_written(const Column& column, const Pending& pending) const;
    std::uint64_t read_back(const Column& column, std::uint64_t chunk) const;

    const comm::World& world_;
    const Schema& schema_;
    std::string path_;
    std::string temporary_;
    hdf5::Handle transfer_;  // collective
    hdf5::Handle file_;
    std::map<std::string, Pending> columns_;
    std::uint64_t total_ = 0;
};

}  // namespace astroclip::store
