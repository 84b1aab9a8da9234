#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <vector>

#include "comm/communicator.hpp"

namespace astroclip::catalogue {

// Some consecutive rows of a catalogue.
struct CatalogueRows {
    at::Tensor vectors;   // [n, D] float32 unit vectors
    at::Tensor usable{};  // [n] bool on the CPU; a row that is false never matches (an object without that
                          // modality). Undefined: all are usable
};

// One rank's contiguous share of the catalogue, in memory or read while it is searched, so that a catalogue
// need not fit.
struct CatalogueShard {
    std::int64_t first_row = 0, rows = 0;
    // Rows [first, first + count) of the catalogue; called from a thread that reads ahead, one call at a
    // time.
    std::function<CatalogueRows(std::int64_t first, std::int64_t count)> read;
    bool in_memory = false;  // reading costs nothing, so that nothing is read ahead

    static CatalogueShard of(const at::Tensor& vectors, std::int64_t first_row = 0,
                             const at::Tensor& usable = {});
};

// The nearest rows of each query, best first; equal scores in the order of rows. The same on all ranks.
struct Neighbours {
    at::Tensor row;    // [Q, k] int64 catalogue rows; -1 where fewer than k rows are usable
    at::Tensor score;  // [Q, k] float32 cosines; -inf beside -1
};

struct SearchBlocks {
    std::int64_t rows = 2048;  // catalogue rows in one product: bounds memory to rows x queries scores
    std::int64_t queries = 256;
    std::int64_t ahead = 8;  // blocks of rows that are read at once, while those before are searched
};

// Exact search by cosine (dot product of unit vectors) over the catalogue of all ranks. Which of image and
// spectrum vectors are query and catalogue makes the four modes. The products are cut on catalogue rows, not
// on shards, so that the result does not depend on the number of ranks, bit for bit. Memory: two times
// blocks.ahead blocks of the catalogue, a copy of the queries, and the results. Collective.
//
//   queries  [Q, D] float32 unit vectors, the same on all ranks, on the device to compute on
Neighbours nearest(comm::Communicator& ranks, const CatalogueShard& shard, const at::Tensor& queries,
                   std::int64_t k, const SearchBlocks& blocks = {});

// The best k of several lists of neighbours of the same queries; and of the lists that the ranks have,
// collective.
Neighbours best_of(const std::vector<Neighbours>& lists, std::int64_t queries, std::int64_t k);
Neighbours merged(comm::Communicator& ranks, const Neighbours& mine);

// The place of each query's true partner in the order of `nearest`, from 1, over the whole catalogue: for
// recall@k and the median rank. `partner_row`: the catalogue row of each query's partner, on all ranks.
// Collective. Throws InternalError if a partner is in no rank's shard or not usable.
std::vector<std::int64_t> partner_places(comm::Communicator& ranks, const CatalogueShard& shard,
                                         const at::Tensor& queries,
                                         const std::vector<std::int64_t>& partner_row,
                                         const SearchBlocks& blocks = {});

}  // namespace astroclip::catalogue
