#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "comm/communicator.hpp"

// Rows that change between the ranks: rank r's row i is row r·b + i of the global batch.
namespace astroclip::ssl {

// A permutation of 0 … count - 1, a function of (seed, step) alone: the same on all ranks.
std::vector<std::int64_t> shuffled_rows(std::int64_t count, std::uint64_t seed, std::uint32_t step);

// Where each row stands in the permutation: places(order)[order[i]] = i.
std::vector<std::int64_t> places(const std::vector<std::int64_t>& order);

// Of the ranks' rows [b, ...] those that the global batch has at [rank·b, (rank + 1)·b) once it is put in
// `order` (size·b numbers, row order[i] comes to place i). Rows pass in pieces, so that no rank ever holds
// the global batch. Collective.
at::Tensor reordered(comm::Communicator& ranks, const at::Tensor& own,
                     const std::vector<std::int64_t>& order);

}  // namespace astroclip::ssl
