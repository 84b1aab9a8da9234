#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

#include "catalogue/neighbours.hpp"
#include "core/error.hpp"

// Approximate search: rows lie in lists around centroids, and a query is compared with those of the nearest
// lists alone (FAISS IndexIVFFlat, inner product; Jegou et al. 2011, doi 10.1109/TPAMI.2010.57, without
// compression).
namespace astroclip::catalogue {

bool has_inverted_lists();  // this build has FAISS
inline void require_inverted_lists()
{
    if (!has_inverted_lists()) {
        throw ConfigError(
            "'index': this build has no FAISS; install libfaiss-dev (tools/setup.sh does) and make one by "
            "ASTROCLIP_FAISS=ON tools/build.sh, or leave it out");
    }
}

// As many lists as pay for n rows: 4 sqrt(n), but no fewer than 39 rows a list, which k-means asks for.
inline std::int64_t lists_for(std::int64_t rows)
{
    const auto wanted = static_cast<std::int64_t>(4 * std::sqrt(static_cast<double>(rows)));
    return std::max<std::int64_t>(1, std::min(wanted, rows / 39));
}

// Writes the lists of some rows into the file `path`.
//   vectors  [n, D] float32 unit vectors on the CPU, n > 0
//   rows     [n] int64, their rows in the catalogue
// Throws IoError if it cannot be written.
void write_inverted_lists(const std::string& path, const at::Tensor& vectors, const at::Tensor& rows,
                          std::int64_t lists, std::uint64_t seed);

// The nearest of those rows in the `probes` nearest lists, all of them at most; -1 and -inf where these have
// fewer than k. The file is mapped into memory, and only the lists that are compared are read.
//   queries  [Q, D] float32 unit vectors on the CPU
// Throws DataError if it is no such file or of another width.
Neighbours search_inverted_lists(const std::string& path, const at::Tensor& queries, std::int64_t k,
                                 std::int64_t probes);

}  // namespace astroclip::catalogue
