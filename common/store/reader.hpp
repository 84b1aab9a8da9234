#pragma once

#include <cstdint>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "store/schema.hpp"

namespace astroclip::store {

// Reads a complete store by its manifest, with the serial driver (so that a reader thread may, while no other
// thread of the process is inside HDF5). Hashes of a part are checked at its first use unless `trust`. Rows
// are numbered over all parts. Errors: MissingInput (66) without a manifest or a part; DataError (65) for a
// wrong kind, size, hash or schema.
class Reader {
public:
    Reader(const std::string& path, const std::string& kind, bool trust = false);  // kind "": any
    ~Reader();
    Reader(Reader&&) noexcept;

    const std::string& path() const;
    const nlohmann::json& manifest() const;
    const Schema& schema() const;
    std::int64_t rows() const;
    std::string content_id() const;

    // Rows [first, first + count) of a column, converted to T, row-major.
    template <typename T>
    void read(const std::string& column, std::int64_t first, std::int64_t count, T* out) const;
    template <typename T>
    std::vector<T> column(const std::string& name) const;  // all rows: small columns only
    const std::vector<double>& axis(const std::string& name) const;
    std::vector<Reject> rejects() const;  // of all parts, in the order of the plan

private:
    struct State;
    std::unique_ptr<State> state_;
};

}  // namespace astroclip::store
