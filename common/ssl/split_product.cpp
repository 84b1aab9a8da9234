#include "ssl/split_product.hpp"

#if defined(__x86_64__)

#include <ATen/cpu/Utils.h>
#include <immintrin.h>

#include <algorithm>
#include <array>
#include <cstdint>

#define ASTROCLIP_AMX __attribute__((target("amx-tile,amx-bf16")))

namespace astroclip::ssl {
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

}  // namespace

bool has_split_product()
{
    static const bool known =
        __builtin_cpu_supports("amx-tile") && __builtin_cpu_supports("amx-bf16") && at::cpu::init_amx();
    return known;
}

void multiply(Split left, std::int64_t rows, std::int64_t k, Split right, std::int64_t n, float* out,
              std::int64_t stride, bool add)
{
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

}  // namespace astroclip::ssl

#endif
