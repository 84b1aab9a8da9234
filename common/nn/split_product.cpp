#include "nn/split_product.hpp"

#if defined(__x86_64__)

#include <ATen/cpu/Utils.h>
#include <immintrin.h>

#include <algorithm>
#include <array>
#include <cstdint>

#include "nn/avx512.hpp"

#define ASTROCLIP_AMX __attribute__((target("amx-tile,amx-bf16")))

namespace astroclip::nn {
namespace {

using at::BFloat16;

constexpr std::int64_t tile = 16;   // rows of a tile of a left factor or a product; columns of a right one's
constexpr std::int64_t depth = 32;  // of k
constexpr std::int64_t tile_size = 512;  // values
constexpr std::int64_t side = 2 * tile;  // of what is summed up in registers: 2 x 2 tiles
// Of k at once: right factors of this depth, 64 KB, stay in the nearest cache but one while all rows pass.
constexpr std::int64_t k_block = 512;
constexpr std::int64_t row_bytes = 64;

// All eight registers hold whole tiles. A constant, as GCC does not see what loading it reads.
struct alignas(64) TileConfiguration {
    std::uint8_t palette = 1, start_row = 0;
    std::array<std::uint8_t, 14> reserved{};
    std::array<std::uint16_t, 16> row_bytes_of{row_bytes, row_bytes, row_bytes, row_bytes,
                                               row_bytes, row_bytes, row_bytes, row_bytes};
    std::array<std::uint8_t, 16> rows_of{tile, tile, tile, tile, tile, tile, tile, tile};
};
constexpr TileConfiguration whole_tiles;

class TileRegisters {
public:
    ASTROCLIP_AMX TileRegisters() { _tile_loadconfig(&whole_tiles); }
    ASTROCLIP_AMX ~TileRegisters() { _tile_release(); }
    TileRegisters(const TileRegisters&) = delete;
    TileRegisters& operator=(const TileRegisters&) = delete;
};

// 32 x 32 values of a product, summed over `k` of the `whole_k` that the factors have. Reading a
// tile costs about as much as multiplying one: each of the eight that are read is used in two or four of the
// twelve products. Meanwhile `ahead`, one tile for each depth of 32, is fetched into the cache (a fifth
// faster).
ASTROCLIP_AMX void multiply_square(Split left, std::int64_t k, std::int64_t whole_k, Split right, float* out,
                                   std::int64_t stride, bool add, const BFloat16* ahead)
{
    const auto bytes = static_cast<std::size_t>(stride) * sizeof(float);
    auto* below = out + tile * stride;
    asm volatile("" ::: "memory");  // nor does it see that reading a tile reads memory
    if (add) {
        _tile_loadd(0, out, bytes);
        _tile_loadd(1, out + tile, bytes);
        _tile_loadd(2, below, bytes);
        _tile_loadd(3, below + tile, bytes);
    } else {
        _tile_zero(0);
        _tile_zero(1);
        _tile_zero(2);
        _tile_zero(3);
    }
    const auto next = tile * whole_k;  // the second 16 rows, or columns
    for (std::int64_t at = 0; at < k / depth * tile_size; at += tile_size) {
        for (std::int64_t line = 0; line < tile_size; line += depth) {
            _mm_prefetch(ahead + at + line, _MM_HINT_T1);
        }
        _tile_loadd(4, left.rest + at, row_bytes);
        _tile_loadd(6, right.high + at, row_bytes);
        _tile_dpbf16ps(0, 4, 6);
        _tile_loadd(7, right.high + at + next, row_bytes);
        _tile_dpbf16ps(1, 4, 7);
        _tile_loadd(5, left.rest + at + next, row_bytes);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
        _tile_loadd(4, left.high + at, row_bytes);
        _tile_dpbf16ps(0, 4, 6);
        _tile_dpbf16ps(1, 4, 7);
        _tile_loadd(5, left.high + at + next, row_bytes);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
        _tile_loadd(6, right.rest + at, row_bytes);
        _tile_dpbf16ps(0, 4, 6);
        _tile_dpbf16ps(2, 5, 6);
        _tile_loadd(7, right.rest + at + next, row_bytes);
        _tile_dpbf16ps(1, 4, 7);
        _tile_dpbf16ps(3, 5, 7);
    }
    _tile_stored(0, out, bytes);
    _tile_stored(1, out + tile, bytes);
    _tile_stored(2, below, bytes);
    _tile_stored(3, below + tile, bytes);
}

// The same for fewer than 32 rows of `out`.
void multiply_rest(Split left, std::int64_t rows, std::int64_t k, std::int64_t whole_k, Split right,
                   float* out, std::int64_t stride, bool add, const BFloat16* ahead)
{
    alignas(64) std::array<float, side * side> square{};
    for (std::int64_t i = 0; add && i < rows; ++i) {
        std::copy_n(out + i * stride, side, square.data() + i * side);
    }
    multiply_square(left, k, whole_k, right, square.data(), side, add, ahead);
    for (std::int64_t i = 0; i < rows; ++i) {
        std::copy_n(square.data() + i * side, side, out + i * stride);
    }
}

// Where the value of row i, column j is. Of a left factor with k columns, the next 31 of an even 32 are
// beside it; of a right one with k rows, the next columns of an even 16 are 2 apart, row i + 1 between.
std::int64_t left_place(std::int64_t i, std::int64_t j, std::int64_t k)
{
    return i / tile * tile * k + j / depth * tile_size + i % tile * depth + j % depth;
}
std::int64_t right_place(std::int64_t i, std::int64_t j, std::int64_t k)
{
    return j / tile * tile * k + i / 2 * depth + j % tile * 2 + i % 2;
}

struct SplitVector {
    __m256i high, rest;
};
ASTROCLIP_AVX512 inline SplitVector split(__m512 x)
{
    const auto high = to_bfloat16(x);
    return {high, to_bfloat16(_mm512_sub_ps(x, from_bfloat16(high)))};
}
ASTROCLIP_AVX512 inline SplitVector split(FactorRow row, std::int64_t j)
{
    return row.values == nullptr
               ? SplitVector{_mm256_setzero_si256(), _mm256_setzero_si256()}
               : split(_mm512_div_ps(_mm512_loadu_ps(row.values + j), _mm512_set1_ps(row.divisor)));
}

ASTROCLIP_AVX512 inline void store(BFloat16* to, __m256i x)
{
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), x);
}
ASTROCLIP_AVX512 inline void store_pairs(BFloat16* to, __m256i even, __m256i odd)
{
    _mm512_storeu_si512(
        to, _mm512_or_si512(_mm512_cvtepu16_epi32(even), _mm512_slli_epi32(_mm512_cvtepu16_epi32(odd), 16)));
}

}  // namespace

bool has_split_product()
{
    static const bool known =
        __builtin_cpu_supports("amx-tile") && __builtin_cpu_supports("amx-bf16") && at::cpu::init_amx();
    return known;
}

// Whole blocks of 32 rows are read, whatever lies in those beyond.
SplitProduct::Left::Left(std::int64_t rows, std::int64_t k) : Factor(rounded_up(rows, side) * k) {}

ASTROCLIP_AVX512 void SplitProduct::Left::set_row(std::int64_t i, FactorRow row, std::int64_t k)
{
    for (std::int64_t j = 0; j < k; j += lanes) {
        const auto x = split(row, j);
        const auto place = left_place(i, j, k);
        store(split_.high + place, x.high);
        store(split_.rest + place, x.rest);
    }
}

ASTROCLIP_AVX512 void SplitProduct::Turned::set_columns(std::int64_t i, const float* values,
                                                        std::int64_t stride, std::int64_t columns,
                                                        std::int64_t rows, std::int64_t k)
{
    const auto step =
        _mm512_mullo_epi32(_mm512_set1_epi32(static_cast<int>(stride)),
                           _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0));
    for (std::int64_t column = 0; column < padded(columns); column += lanes) {
        const auto part = first_lanes(std::max<std::int64_t>(columns - column, 0));
        for (std::int64_t row = 0; row < rows; ++row) {
            const auto x = split(_mm512_mask_i32gather_ps(_mm512_setzero_ps(), part, step,
                                                          values + column * stride + row, sizeof(float)));
            const auto place = left_place(row, i + column, k);
            store(split_.high + place, x.high);
            store(split_.rest + place, x.rest);
        }
    }
}

ASTROCLIP_AVX512 void SplitProduct::Right::set_rows(std::int64_t i, FactorRow even, FactorRow odd,
                                                    std::int64_t k, std::int64_t n)
{
    for (std::int64_t j = 0; j < n; j += lanes) {
        const auto x = split(even, j), y = split(odd, j);
        const auto place = right_place(i, j, k);
        store_pairs(split_.high + place, x.high, y.high);
        store_pairs(split_.rest + place, x.rest, y.rest);
    }
}

ASTROCLIP_AVX512 void SplitProduct::Right::set_column(std::int64_t j, FactorRow row, std::int64_t k)
{
    std::array<BFloat16, lanes> high, rest;
    for (std::int64_t i = 0; i < k; i += lanes) {
        const auto x = split(row, i);
        store(high.data(), x.high);
        store(rest.data(), x.rest);
        for (std::int64_t pair = 0; pair < lanes; pair += 2) {
            const auto place = right_place(i + pair, j, k);
            std::copy_n(high.data() + pair, 2, split_.high + place);
            std::copy_n(rest.data() + pair, 2, split_.rest + place);
        }
    }
}

void SplitProduct::multiply(const Left& left_factor, std::int64_t first_row, std::int64_t rows,
                            std::int64_t k, const Right& right_factor, std::int64_t n, float* out,
                            std::int64_t stride, bool add)
{
    const auto left = left_factor.split_ + first_row * k, right = right_factor.split_;
    const TileRegisters registers;
    for (std::int64_t first = 0; first < k; first += k_block) {
        const auto depth_now = std::min(k_block, k - first);
        const bool add_now = add || first > 0;
        for (std::int64_t column = 0; column < n; column += side) {
            const auto b = right + column * k + first * tile;
            // The next columns of the factor, or the first once more: a quarter of them for each 32 rows.
            const auto next = right + (column + side < n ? column + side : 0) * k + first * tile;
            const std::array quarters{next.high, next.high + tile * k, next.rest, next.rest + tile * k};
            for (std::int64_t row = 0; row < rows; row += side) {
                const auto a = left + row * k + first * tile;
                auto* const square = out + row * stride + column;
                const auto* ahead = quarters[static_cast<std::size_t>(row / side % 4)];
                if (row + side <= rows) {
                    multiply_square(a, depth_now, k, b, square, stride, add_now, ahead);
                } else {
                    multiply_rest(a, rows - row, depth_now, k, b, square, stride, add_now, ahead);
                }
            }
        }
    }
}

}  // namespace astroclip::nn

#endif
