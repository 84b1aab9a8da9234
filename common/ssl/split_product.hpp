#pragma once

#if defined(__x86_64__)

#include <ATen/ATen.h>

#include <cstdint>

namespace astroclip::ssl {

// Products of float32 matrices on processors that multiply tiles of bfloat16 (AMX): each factor is the sum
// of a bfloat16 and the bfloat16 rest, the product that of three pairs (rest by rest is left out), with
// float32 sums. Factors lie in memory as the processor takes them, in tiles of 1 KB: a left factor as tiles
// of 16 rows by 32 columns, a right one as tiles of 32 rows by 16 columns with rows 2i and 2i + 1 side by
// side. What is one after the other along k, the dimension that is summed over, is so in memory too.

// Columns, and what k and n are filled up to with zeros.
inline constexpr std::int64_t split_block = 64;
inline std::int64_t padded(std::int64_t n) { return (n + split_block - 1) / split_block * split_block; }

struct Split {
    at::BFloat16 *high, *rest;

    Split operator+(std::int64_t offset) const { return {high + offset, rest + offset}; }
};

struct SplitSpace {
    explicit SplitSpace(std::int64_t size)
        : space(at::empty({2, size}, at::kBFloat16)),
          split{space.mutable_data_ptr<at::BFloat16>(), space.mutable_data_ptr<at::BFloat16>() + size}
    {
    }
    at::Tensor space;
    Split split;
};

// Where the value of row i, column j is. Of a left factor with k columns, the next 31 of an even 32 are
// beside it; of a right one with k rows, the next columns of an even 16 are 2 apart, row i + 1 between.
inline std::int64_t left_place(std::int64_t i, std::int64_t j, std::int64_t k)
{
    return i / 16 * 16 * k + j / 32 * 512 + i % 16 * 32 + j % 32;
}
inline std::int64_t right_place(std::int64_t i, std::int64_t j, std::int64_t k)
{
    return j / 16 * 16 * k + i / 2 * 32 + j % 16 * 2 + i % 2;
}

bool has_split_product();

// out [rows, n] = left [rows, k] · right [k, n], or added to it; rows of `out` are `stride` apart. k and n in
// whole blocks of 64. `left` has space for whole blocks of 32 rows, whatever lies in those beyond `rows`.
void multiply(Split left, std::int64_t rows, std::int64_t k, Split right, std::int64_t n, float* out,
              std::int64_t stride, bool add);

}  // namespace astroclip::ssl

#endif
