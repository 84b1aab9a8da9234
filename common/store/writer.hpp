#pragma once

#include <cstdint>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "comm/world.hpp"
#include "store/publication.hpp"
#include "store/schema.hpp"

namespace astroclip::store {

// Rows on their way into a part: one buffer a column, filled row by row.
class Rows {
public:
    explicit Rows(const Schema& schema);
    std::size_t size() const;
    void clear();
    // Appends `count` rows of a column; every column must have equal length when the rows are appended to the
    // writer.
    template <typename T>
    void add(const std::string& column, const T* values, std::size_t count);
    template <typename T>
    void add(const std::string& column, T value);  // a scalar column, one row
    const std::vector<char>& bytes(const std::string& column) const;

private:
    const Schema* schema_;
    std::map<std::string, std::vector<char>> bytes_;
};

// Writes a store in parts (parallel HDF5, collective, Fletcher32): a part is a fixed range of the plan's
// input objects, so its content depends neither on the ranks nor on rejects elsewhere; it is the unit of
// resume.
//
//   Writer writer(output, schema, plan_size, plan_id, options);
//   while (writer.next_part()) {                              // parts already published are skipped
//       for (auto turn : writer.turns()) {                    // the same turns on all ranks
//           Rows rows(schema); std::vector<Reject> rejects;
//           for (i in this rank's [turn.first, turn.last)) …  // plan positions, in order
//           writer.append(rows, rejects);                     // collective; may be empty
//       }
//       writer.publish_part();                                // collective: close, verify, sync, rename,
//       commit
//   }
//   writer.publish();                                         // collective: index.h5, rejects, manifest.json
//
// Of an output that is taken as one of several shards it writes that shard's parts, and publish() completes
// the store only if the parts of all others are there.
class Writer {
public:
    struct Options {
        std::int64_t part_rows = 0;  // 0: about 4 GiB
        std::int64_t turn_rows = 0;  // plan objects of one collective write, over all ranks; 0: about 64 MiB
        double max_reject_fraction = 0.01;
        std::int64_t unit_rows =
            1;  // a rank's share of a turn starts at a multiple of this (a model's compute batch)
        bool verify = true;  // read every part back before it is published
    };
    struct Range {
        std::int64_t first = 0, last = 0;  // [first, last)
        std::int64_t size() const { return last - first; }
    };

    // Collective. `plan_size`: number of input objects; `plan_id`: hash of the plan (part of the resume
    // check).
    Writer(Output& output, Schema schema, std::int64_t plan_size, const std::string& plan_id,
           Options options);
    ~Writer();

    // All collective.
    bool next_part();    // of this shard; throws Stopped (75) when a stop was requested and at least this
                         // boundary is good
    Range part() const;  // plan positions of this part
    std::vector<Range> turns() const;  // this rank's share of each turn, in order; may be empty ranges
    void append(const Rows& rows, const std::vector<Reject>& rejects);
    void publish_part();
    bool publish(const nlohmann::json& extra = nlohmann::json::object());  // is the store complete?

    // For progress: plan positions of this shard, and those of them that are published or appended so far.
    std::int64_t plan_share() const;
    std::int64_t plan_done() const;

private:
    struct State;
    std::unique_ptr<State> state_;
};

}  // namespace astroclip::store
