#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "store/publication.hpp"
#include "store/schema.hpp"

namespace astroclip::store {

// Writes the file that people open: a copy of the scalar columns of all parts, virtual datasets (fill NaN)
// over the parts for the others, axes, and all rejects. With the serial driver: virtual datasets cannot be
// read through MPI-IO. Rank 0. InternalError if an object_id occurs twice and `unique_ids`.
void write_index(const std::string& path, const std::string& folder, const Schema& schema,
                 const Request& request, const std::vector<std::int64_t>& part_rows, bool unique_ids);

// An identifier that occurs twice or more, if there is one.
const std::int64_t* duplicate_in(std::vector<std::int64_t>& ids);  // sorts them

}  // namespace astroclip::store
