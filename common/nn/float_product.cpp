#include "nn/float_product.hpp"

#if defined(__x86_64__)

#include <algorithm>
#include <array>
#include <utility>

#include "nn/avx512.hpp"

namespace astroclip::nn {
namespace {

constexpr auto panel = FloatProduct::panel;  // two vectors
// 8 rows by 32 columns are 16 sums, in half of the registers. With 12 or 14 rows it is no quicker (Zen 4: 115
// GFLOP/s on a core, 98 % of what it can).
constexpr int side = FloatProduct::side;
constexpr std::int64_t no_power_of_two = lanes;  // added to a distance in memory, for the caches' sake

std::int64_t panel_place(std::int64_t i, std::int64_t j, std::int64_t k)
{
    return j / panel * panel * k + i * panel + j % panel;
}

ASTROCLIP_AVX512 inline __m512 vector_of(FactorRow row, std::int64_t j)
{
    return row.values == nullptr
               ? _mm512_setzero_ps()
               : _mm512_div_ps(_mm512_loadu_ps(row.values + j), _mm512_set1_ps(row.divisor));
}

// A factor's rows `a`, row_step and column_step apart, times one panel of the other.
template <int rows>
ASTROCLIP_AVX512 void multiply_rows(const float* a, std::int64_t row_step, std::int64_t column_step,
                                    std::int64_t k, const float* b, float* out, std::int64_t stride, bool add)
{
    struct Sums {
        __m512 left, right;
    };
    std::array<Sums, rows> sums;
#pragma GCC unroll 8
    for (int i = 0; i < rows; ++i) {
        sums[i].left = add ? _mm512_loadu_ps(out + i * stride) : _mm512_setzero_ps();
        sums[i].right = add ? _mm512_loadu_ps(out + i * stride + lanes) : _mm512_setzero_ps();
    }
    for (std::int64_t at = 0; at < k; ++at, a += column_step, b += panel) {
        const auto b_left = _mm512_loadu_ps(b), b_right = _mm512_loadu_ps(b + lanes);
#pragma GCC unroll 8
        for (int i = 0; i < rows; ++i) {
            const auto x = _mm512_set1_ps(a[i * row_step]);
            sums[i].left = _mm512_fmadd_ps(x, b_left, sums[i].left);
            sums[i].right = _mm512_fmadd_ps(x, b_right, sums[i].right);
        }
    }
#pragma GCC unroll 8
    for (int i = 0; i < rows; ++i) {
        _mm512_storeu_ps(out + i * stride, sums[i].left);
        _mm512_storeu_ps(out + i * stride + lanes, sums[i].right);
    }
}

using Multiply = decltype(&multiply_rows<side>);

template <int... rows>
constexpr std::array<Multiply, side> for_rows(std::integer_sequence<int, rows...>)
{
    return {multiply_rows<rows + 1>...};
}
constexpr auto of_rows = for_rows(std::make_integer_sequence<int, side>());  // 1 … 8

}  // namespace

FloatProduct::Left::Left(std::int64_t size, std::int64_t row_step, std::int64_t column_step)
    : space_(at::empty({size}, at::kFloat)),
      values_(space_.mutable_data_ptr<float>()),
      row_step_(row_step),
      column_step_(column_step)
{
}

FloatProduct::Left::Left(std::int64_t rows, std::int64_t k)
    : Left(rows * (k + no_power_of_two), k + no_power_of_two, 1)
{
}

FloatProduct::Turned::Turned(std::int64_t rows, std::int64_t k)
    : Left((rows + no_power_of_two) * k, 1, rows + no_power_of_two)
{
}

FloatProduct::Right::Right(std::int64_t k, std::int64_t n)
    : space_(at::empty({k * n}, at::kFloat)), values_(space_.mutable_data_ptr<float>())
{
}

ASTROCLIP_AVX512 void FloatProduct::Left::set_row(std::int64_t i, FactorRow row, std::int64_t k)
{
    for (std::int64_t j = 0; j < k; j += lanes) {
        _mm512_storeu_ps(place(i, j), vector_of(row, j));
    }
}

void FloatProduct::Turned::set_columns(std::int64_t i, const float* values, std::int64_t stride,
                                       std::int64_t columns, std::int64_t rows, std::int64_t /*k*/)
{
    for (std::int64_t j = 0; j < padded(columns); ++j) {
        if (j < columns) {
            std::copy_n(values + j * stride, rows, place(0, i + j));
        } else {
            std::fill_n(place(0, i + j), rows, 0.0F);
        }
    }
}

ASTROCLIP_AVX512 void FloatProduct::Right::set_rows(std::int64_t i, FactorRow even, FactorRow odd,
                                                    std::int64_t k, std::int64_t n)
{
    for (std::int64_t j = 0; j < n; j += lanes) {
        _mm512_storeu_ps(values_ + panel_place(i, j, k), vector_of(even, j));
        _mm512_storeu_ps(values_ + panel_place(i + 1, j, k), vector_of(odd, j));
    }
}

void FloatProduct::Right::set_column(std::int64_t j, FactorRow row, std::int64_t k)
{
    for (std::int64_t i = 0; i < k; ++i) {
        values_[panel_place(i, j, k)] = row.values == nullptr ? 0 : row.values[i] / row.divisor;
    }
}

void FloatProduct::multiply(const float* a, std::int64_t row_step, std::int64_t column_step,
                            std::int64_t rows, std::int64_t k, const Right& right, std::int64_t n, float* out,
                            std::int64_t stride, bool add)
{
    for (std::int64_t column = 0; column < n; column += panel) {
        const auto* b = right.values_ + panel_place(0, column, k);
        for (std::int64_t row = 0; row < rows; row += side) {
            const auto count = std::min<std::int64_t>(side, rows - row);
            of_rows[static_cast<std::size_t>(count - 1)](a + row * row_step, row_step, column_step, k, b,
                                                         out + row * stride + column, stride, add);
        }
    }
}

void FloatProduct::multiply(const Left& left, std::int64_t first, std::int64_t rows, std::int64_t k,
                            const Right& right, std::int64_t n, float* out, std::int64_t stride, bool add)
{
    multiply(left.place(first, 0), left.row_step_, left.column_step_, rows, k, right, n, out, stride, add);
}

}  // namespace astroclip::nn

#endif
