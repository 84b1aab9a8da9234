#pragma once

#include <cstdint>

#include "core/rounding.hpp"

namespace astroclip::nn {

// Products of float32 matrices whose factors are rearranged for the processor first: split_product.hpp,
// float_product.hpp. What both have:
//
//   Left(rows, k)      space for a left factor [rows, k]
//     set_row(i, row, k)               its row i
//
//   Turned(rows, k)    the same, set by columns
//     set_columns(i, values, stride, columns, rows, k)
//                                      its columns i …, as many as padded(columns), from the rows of `values`
//                                      [columns, rows], which are `stride` apart, and zeros
//
//   Right(k, n)        space for a right factor [k, n]
//     set_rows(i, even, odd, k, n)     its rows i, which is even, and i + 1
//     set_column(j, row, k)            its column j
//
//   multiply(left, first, rows, k, right, n, out, stride, add)
//                      out [rows, n] = left [first … first + rows, k] · right [k, n], or added to it; rows of
//                      `out` are `stride` apart
//
// k and n are those of the factor as it is set, in whole blocks of 64, up to what there is space for. `first`
// is in whole blocks of 32. Threads may set rows and columns of one factor at once.
inline constexpr std::int64_t product_block = 64;
inline std::int64_t padded(std::int64_t n) { return rounded_up(n, product_block); }

// values / divisor, in whole vectors of 16; nullptr: zeros. (By the inverse of the divisor all values would
// be off by one rounding.)
struct FactorRow {
    const float* values;
    float divisor = 1;
};

}  // namespace astroclip::nn
