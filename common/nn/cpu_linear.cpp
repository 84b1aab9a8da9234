#include "nn/cpu_linear.hpp"

#include "core/error.hpp"

#if defined(__x86_64__)

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <type_traits>

#include "core/rounding.hpp"
#include "nn/brgemm.hpp"

namespace astroclip::nn {
namespace {

using at::BFloat16;
using at::native::cpublas::brgemm;

constexpr std::int64_t panel = 64;               // columns of a packed right factor that lie together
constexpr std::int64_t row_block = 64;           // rows of a tile of the product
constexpr std::int64_t depth_block = 1024;       // terms summed in one call
constexpr std::int64_t enough_rows = 64;         // below, packing costs more than it brings
constexpr std::int64_t gelu_elements = 1 << 14;  // of a thread's share at least

// 16 x 16 numbers, a row a vector.
struct Square {
    __m512 row[lanes];
};

// The first, and the second, of each two pairs of numbers of a, and of b beside them.
ASTROCLIP_AVX512 inline __m512 low_pairs(__m512 a, __m512 b)
{
    return _mm512_castpd_ps(_mm512_unpacklo_pd(_mm512_castps_pd(a), _mm512_castps_pd(b)));
}
ASTROCLIP_AVX512 inline __m512 high_pairs(__m512 a, __m512 b)
{
    return _mm512_castpd_ps(_mm512_unpackhi_pd(_mm512_castps_pd(a), _mm512_castps_pd(b)));
}

ASTROCLIP_AVX512 inline void transpose(Square& s)
{
    Square pairs, fours;
    for (int i = 0; i < 16; i += 2) {
        pairs.row[i] = _mm512_unpacklo_ps(s.row[i], s.row[i + 1]);
        pairs.row[i + 1] = _mm512_unpackhi_ps(s.row[i], s.row[i + 1]);
    }
    for (int i = 0; i < 16; i += 4) {
        fours.row[i] = low_pairs(pairs.row[i], pairs.row[i + 2]);
        fours.row[i + 1] = high_pairs(pairs.row[i], pairs.row[i + 2]);
        fours.row[i + 2] = low_pairs(pairs.row[i + 1], pairs.row[i + 3]);
        fours.row[i + 3] = high_pairs(pairs.row[i + 1], pairs.row[i + 3]);
    }
    // A quarter of fours.row[4·g + j], number l, holds column 4·l + j of the rows 4·g to 4·g + 3.
    for (int j = 0; j < 4; ++j) {
        const auto even_low = _mm512_shuffle_f32x4(fours.row[j], fours.row[4 + j], 0x88);
        const auto even_high = _mm512_shuffle_f32x4(fours.row[8 + j], fours.row[12 + j], 0x88);
        const auto odd_low = _mm512_shuffle_f32x4(fours.row[j], fours.row[4 + j], 0xdd);
        const auto odd_high = _mm512_shuffle_f32x4(fours.row[8 + j], fours.row[12 + j], 0xdd);
        s.row[j] = _mm512_shuffle_f32x4(even_low, even_high, 0x88);
        s.row[4 + j] = _mm512_shuffle_f32x4(odd_low, odd_high, 0x88);
        s.row[8 + j] = _mm512_shuffle_f32x4(even_low, even_high, 0xdd);
        s.row[12 + j] = _mm512_shuffle_f32x4(odd_low, odd_high, 0xdd);
    }
}

// A matrix in memory, its rows perhaps multiplied by a number each.
template <typename T>
struct Matrix {
    const T* data;
    std::int64_t rows, columns, stride;
    const float* row_scale = nullptr;
};
template <typename T>
Matrix<T> matrix(const at::Tensor& x, const at::Tensor& row_scale = {})
{
    return {x.const_data_ptr<T>(), x.size(0), x.size(1), x.stride(0),
            row_scale.defined() ? row_scale.const_data_ptr<float>() : nullptr};
}

// 16 rows and columns of it; zeros below its last row.
template <typename T>
ASTROCLIP_AVX512 inline Square square(const Matrix<T>& from, std::int64_t row, std::int64_t column)
{
    Square s;
    for (std::int64_t i = 0; i < lanes; ++i) {
        if (row + i >= from.rows) {
            s.row[i] = _mm512_setzero_ps();
            continue;
        }
        s.row[i] = load(from.data + (row + i) * from.stride + column);
        if (from.row_scale != nullptr) {
            s.row[i] = _mm512_mul_ps(s.row[i], _mm512_set1_ps(from.row_scale[row + i]));
        }
    }
    return s;
}

// The right factor of a product as brgemm wants it: panels of 64 columns, in bfloat16 with each two rows side
// by side. `depth`: its rows, even in bfloat16.
template <typename T>
struct Panels {
    Panels(std::int64_t of_depth, std::int64_t columns)
        : depth(of_depth),
          count(columns / panel),
          tensor(at::empty({columns * of_depth}, c10::CppTypeToScalarType<T>::value)),
          data(tensor.template data_ptr<T>())
    {
    }
    T* at(std::int64_t number, std::int64_t row) const { return data + (number * depth + row) * panel; }

    std::int64_t depth, count;
    at::Tensor tensor;
    T* data;
};

ASTROCLIP_AVX512 inline void store_packed(const Square& s, std::int64_t column, float* to)
{
    for (std::int64_t i = 0; i < lanes; ++i) {
        store(to + i * panel + column, s.row[i]);
    }
}
ASTROCLIP_AVX512 inline void store_packed(const Square& s, std::int64_t column, BFloat16* to)
{
    for (std::int64_t i = 0; i < lanes; i += 2) {
        const auto even = _mm512_cvtepu16_epi32(to_bfloat16(s.row[i]));
        const auto odd = _mm512_cvtepu16_epi32(to_bfloat16(s.row[i + 1]));
        _mm512_storeu_si512(to + i * panel + 2 * column, _mm512_or_si512(even, _mm512_slli_epi32(odd, 16)));
    }
}

// Rows [first, first + 16) of one panel of `from`, or of its transpose.
template <bool transposed, typename T, typename S>
ASTROCLIP_AVX512 void pack_rows(const Matrix<S>& from, std::int64_t number, std::int64_t first, T* to)
{
    for (std::int64_t column = 0; column < panel; column += lanes) {
        const auto across = number * panel + column;
        auto s = transposed ? square(from, across, first) : square(from, first, across);
        if (transposed) transpose(s);
        store_packed(s, column, to);
    }
}

template <typename T, bool transposed, typename S>
Panels<T> packed(const Matrix<S>& from)
{
    const auto depth = rounded_up(transposed ? from.columns : from.rows, lanes);
    const Panels<T> to(depth, transposed ? from.rows : from.columns);
    const auto steps = depth / lanes;
    at::parallel_for(0, to.count * steps, 4, [&](std::int64_t begin, std::int64_t end) {
        for (auto i = begin; i < end; ++i) {
            const auto number = i / steps, first = i % steps * lanes;
            pack_rows<transposed>(from, number, first, to.at(number, first));
        }
    });
    return to;
}

// left·right, tile by tile: finish(tile [rows, 64], first row, rows, first column).
template <typename T, typename Finish>
void multiply(const Matrix<T>& left, const Panels<T>& right, const Finish& finish)
{
    const auto blocks = (left.rows + row_block - 1) / row_block;
    at::parallel_for(0, right.count * blocks, 1, [&](std::int64_t begin, std::int64_t end) {
        alignas(64) float tile[row_block * panel];
        for (auto i = begin; i < end; ++i) {
            const auto number = i / blocks, first = i % blocks * row_block;
            const auto rows = std::min(row_block, left.rows - first);
            for (std::int64_t k = 0; k < right.depth; k += depth_block) {
                brgemm(rows, panel, std::min(depth_block, right.depth - k), left.stride, panel, panel, k > 0,
                       left.data + first * left.stride + k, right.at(number, k), tile);
            }
            finish(tile, first, rows, number * panel);
        }
        at::native::cpublas::brgemm_release(std::is_same_v<T, BFloat16>);
    });
}

// Φ(x), the normal distribution, to 8e-8 (Abramowitz & Stegun 1964, 7.1.26), and exp(-x²/2).
struct Normal {
    __m512 below, bell;
};
ASTROCLIP_AVX512 inline Normal normal(__m512 x)
{
    const auto one = _mm512_set1_ps(1.0F);
    const auto bell = exp_of(_mm512_mul_ps(_mm512_mul_ps(x, x), _mm512_set1_ps(-0.5F)));
    const auto z = _mm512_mul_ps(_mm512_abs_ps(x), _mm512_set1_ps(0.3275911F * 0.70710678F));
    const auto t = _mm512_div_ps(one, _mm512_add_ps(one, z));
    auto y = _mm512_set1_ps(0.5F * 1.061405429F);
    y = _mm512_fmadd_ps(y, t, _mm512_set1_ps(0.5F * -1.453152027F));
    y = _mm512_fmadd_ps(y, t, _mm512_set1_ps(0.5F * 1.421413741F));
    y = _mm512_fmadd_ps(y, t, _mm512_set1_ps(0.5F * -0.284496736F));
    y = _mm512_fmadd_ps(y, t, _mm512_set1_ps(0.5F * 0.254829592F));
    const auto tail = _mm512_mul_ps(_mm512_mul_ps(y, t), bell);  // Φ(-|x|)
    const auto negative = _mm512_cmp_ps_mask(x, _mm512_setzero_ps(), _CMP_LT_OQ);
    return {_mm512_mask_mov_ps(_mm512_sub_ps(one, tail), negative, tail), bell};
}

ASTROCLIP_AVX512 inline __m512 gelu(__m512 x) { return _mm512_mul_ps(x, normal(x).below); }

ASTROCLIP_AVX512 inline __m512 gelu_slope(__m512 x)
{
    const auto n = normal(x);
    return _mm512_fmadd_ps(_mm512_mul_ps(x, n.bell), _mm512_set1_ps(0.39894228F), n.below);
}

// Where a tile of a layer's product goes. The weights have been scaled, the bias has not.
template <typename T>
struct Finish {
    const float *bias, *scale, *residual;
    T *out, *activated;  // either may be null
    float* sum;          // residual + y; may be null, as the residual
    std::int64_t width;

    ASTROCLIP_AVX512 void operator()(const float* tile, std::int64_t first, std::int64_t rows,
                                     std::int64_t column) const
    {
        for (std::int64_t j = 0; j < panel; j += lanes) {
            auto shift = load(bias + column + j);
            if (scale != nullptr) shift = _mm512_mul_ps(shift, load(scale + column + j));
            for (std::int64_t i = 0; i < rows; ++i) {
                const auto at = (first + i) * width + column + j;
                const auto y = _mm512_add_ps(load(tile + i * panel + j), shift);
                if (sum != nullptr) {
                    store(sum + at, residual != nullptr ? _mm512_add_ps(load(residual + at), y) : y);
                }
                if (out != nullptr) store(out + at, y);
                if (activated != nullptr) store(activated + at, gelu(y));
            }
        }
    }
};

const float* floats_or_null(const at::Tensor& x) { return x.defined() ? x.const_data_ptr<float>() : nullptr; }

template <typename T>
void run(const at::Tensor& x, const CpuLinear& layer, Finish<T> finish)
{
    finish.bias = layer.bias.const_data_ptr<float>();
    finish.scale = floats_or_null(layer.scale);
    finish.width = layer.weight.size(0);
    multiply(matrix<T>(x), packed<T, true>(matrix<float>(layer.weight, layer.scale)), finish);
}

template <typename T>
at::Tensor forward(const at::Tensor& x, const CpuLinear& layer, const at::Tensor& residual)
{
    Finish<T> finish{};
    at::Tensor y;
    const auto empty = [&](at::ScalarType type) {
        return at::empty({x.size(0), layer.weight.size(0)}, x.options().dtype(type));
    };
    if (residual.defined() || layer.scale.defined()) {
        y = empty(at::kFloat);
        finish.residual = floats_or_null(residual);
        finish.sum = y.data_ptr<float>();
    } else {
        y = empty(x.scalar_type());
        finish.out = y.data_ptr<T>();
    }
    run(x, layer, finish);
    return y;
}

template <typename T>
Activation forward_gelu(const at::Tensor& x, const CpuLinear& layer, bool keep)
{
    Activation result;
    result.after = at::empty({x.size(0), layer.weight.size(0)}, x.options());
    if (keep) result.before = at::empty_like(result.after);
    Finish<T> finish{};
    finish.out = keep ? result.before.data_ptr<T>() : nullptr;
    finish.activated = result.after.data_ptr<T>();
    run(x, layer, finish);
    return result;
}

template <typename T>
ASTROCLIP_AVX512 void gelu_gradient(const T* before, const T* dy, std::int64_t n, T* to)
{
    for (std::int64_t i = 0; i < n; i += lanes) {
        store(to + i, _mm512_mul_ps(load(dy + i), gelu_slope(load(before + i))));
    }
}

template <typename T>
at::Tensor gelu_gradient(const at::Tensor& before, const at::Tensor& dy)
{
    const auto gradient = at::empty_like(before);
    const auto *x = before.const_data_ptr<T>(), *from = dy.const_data_ptr<T>();
    auto* to = gradient.data_ptr<T>();
    at::parallel_for(
        0, before.numel() / lanes, gelu_elements / lanes, [&](std::int64_t begin, std::int64_t end) {
            gelu_gradient(x + begin * lanes, from + begin * lanes, (end - begin) * lanes, to + begin * lanes);
        });
    return gradient;
}

// A tile as it is, in the output's type.
template <typename T>
struct Copy {
    T* out;
    std::int64_t width;

    ASTROCLIP_AVX512 void operator()(const float* tile, std::int64_t first, std::int64_t rows,
                                     std::int64_t column) const
    {
        for (std::int64_t i = 0; i < rows; ++i) {
            for (std::int64_t j = 0; j < panel; j += lanes) {
                store(out + (first + i) * width + column + j, load(tile + i * panel + j));
            }
        }
    }
};

template <typename T>
at::Tensor input_gradient(const at::Tensor& dy, const CpuLinear& layer)
{
    const auto dx = at::empty({dy.size(0), layer.weight.size(1)}, dy.options());
    multiply(matrix<T>(dy), packed<T, false>(matrix<float>(layer.weight, layer.scale)),
             Copy<T>{dx.data_ptr<T>(), dx.size(1)});
    return dx;
}

// 16 columns of dy, transposed: their rows [16, depth], `stride` apart, with zeros at the end, and their
// sums.
template <typename T>
ASTROCLIP_AVX512 void transpose_columns(const Matrix<T>& dy, std::int64_t column, std::int64_t depth, T* to,
                                        std::int64_t stride, float* sums)
{
    auto sum = _mm512_setzero_ps();
    for (std::int64_t first = 0; first < depth; first += lanes) {
        auto s = square(dy, first, column);
        for (const auto& row : s.row) sum = _mm512_add_ps(sum, row);
        transpose(s);
        for (std::int64_t i = 0; i < lanes; ++i) store(to + i * stride + first, s.row[i]);
    }
    store(sums, sum);
}

// A tile of dyᵀ·x, the gradient of scale ∘ W. Of W it is scale ∘ that; that of the scale is its product with
// W, of which each panel of columns writes its part.
struct WeightGradient {
    float *out, *scale_parts;     // [N, K], [N, K/64] or null
    const float *weight, *scale;  // null without a scale
    std::int64_t width, weight_stride;

    ASTROCLIP_AVX512 void operator()(const float* tile, std::int64_t first, std::int64_t rows,
                                     std::int64_t column) const
    {
        for (std::int64_t i = first; i < first + rows; ++i) {
            const auto factor = _mm512_set1_ps(scale != nullptr ? scale[i] : 1.0F);
            auto part = _mm512_setzero_ps();
            for (std::int64_t j = 0; j < panel; j += lanes) {
                const auto g = load(tile + (i - first) * panel + j);
                store(out + i * width + column + j, _mm512_mul_ps(g, factor));
                if (scale != nullptr)
                    part = _mm512_fmadd_ps(g, load(weight + i * weight_stride + column + j), part);
            }
            if (scale != nullptr)
                scale_parts[i * (width / panel) + column / panel] = _mm512_reduce_add_ps(part);
        }
    }
};

template <typename T>
LinearGradients gradients(const at::Tensor& x, const at::Tensor& dy, const CpuLinear& layer)
{
    const auto n = layer.weight.size(0), k = layer.weight.size(1);
    const auto right = packed<T, false>(matrix<T>(x));
    // brgemm keeps code for every stride that it has met: of few, however many rows there are.
    const auto stride = rounded_up(right.depth, depth_block) + lanes;
    const auto dy_t = at::empty({n, stride}, dy.options());
    const auto sums = at::empty({n}, layer.weight.options().requires_grad(false));
    auto* rows = dy_t.template data_ptr<T>();
    auto* sum = sums.template data_ptr<float>();
    at::parallel_for(0, n / lanes, 1, [&](std::int64_t begin, std::int64_t end) {
        for (auto i = begin * lanes; i < end * lanes; i += lanes) {
            transpose_columns(matrix<T>(dy), i, right.depth, rows + i * stride, stride, sum + i);
        }
    });
    LinearGradients result{at::empty({n, k}, sums.options()), sums, {}};
    WeightGradient finish{result.weight.data_ptr<float>(), nullptr, nullptr, nullptr, k,
                          layer.weight.stride(0)};
    at::Tensor parts;
    if (layer.scale.defined()) {
        parts = at::empty({n, k / panel}, sums.options());
        finish.scale_parts = parts.data_ptr<float>();
        finish.weight = layer.weight.const_data_ptr<float>();
        finish.scale = layer.scale.const_data_ptr<float>();
    }
    multiply(matrix<T>(dy_t), right, finish);
    if (layer.scale.defined()) {
        result.scale = parts.sum(1) + sums * layer.bias;
        result.bias = sums * layer.scale;
    }
    return result;
}

bool is_float(const at::Tensor& x) { return x.scalar_type() == at::kFloat; }

}  // namespace

bool has_cpu_linear(const at::Tensor& x, const at::Tensor& weight)
{
    const auto type = x.scalar_type();
    return x.is_cpu() && (type == at::kFloat || type == at::kBFloat16) && is_float(weight) &&
           weight.is_cpu() && weight.stride(1) == 1 && weight.size(0) % panel == 0 &&
           weight.size(1) % panel == 0 && x.numel() / weight.size(1) >= enough_rows && has_brgemm();
}

at::Tensor cpu_linear(const at::Tensor& x, const CpuLinear& layer, const at::Tensor& residual)
{
    return is_float(x) ? forward<float>(x, layer, residual) : forward<BFloat16>(x, layer, residual);
}

Activation cpu_linear_gelu(const at::Tensor& x, const CpuLinear& layer, bool keep)
{
    return is_float(x) ? forward_gelu<float>(x, layer, keep) : forward_gelu<BFloat16>(x, layer, keep);
}

at::Tensor cpu_gelu_gradient(const at::Tensor& before, const at::Tensor& dy)
{
    return is_float(before) ? gelu_gradient<float>(before, dy) : gelu_gradient<BFloat16>(before, dy);
}

at::Tensor cpu_linear_input_gradient(const at::Tensor& dy, const CpuLinear& layer)
{
    return is_float(dy) ? input_gradient<float>(dy, layer) : input_gradient<BFloat16>(dy, layer);
}

LinearGradients cpu_linear_gradients(const at::Tensor& x, const at::Tensor& dy, const CpuLinear& layer)
{
    return is_float(x) ? gradients<float>(x, dy, layer) : gradients<BFloat16>(x, dy, layer);
}

}  // namespace astroclip::nn

#else

namespace astroclip::nn {

bool has_cpu_linear(const at::Tensor&, const at::Tensor&) { return false; }

at::Tensor cpu_linear(const at::Tensor&, const CpuLinear&, const at::Tensor&)
{
    throw InternalError("a layer by AVX-512 on another processor");
}

Activation cpu_linear_gelu(const at::Tensor&, const CpuLinear&, bool)
{
    throw InternalError("a layer by AVX-512 on another processor");
}

at::Tensor cpu_gelu_gradient(const at::Tensor&, const at::Tensor&)
{
    throw InternalError("a layer by AVX-512 on another processor");
}

at::Tensor cpu_linear_input_gradient(const at::Tensor&, const CpuLinear&)
{
    throw InternalError("a layer by AVX-512 on another processor");
}

LinearGradients cpu_linear_gradients(const at::Tensor&, const at::Tensor&, const CpuLinear&)
{
    throw InternalError("a layer by AVX-512 on another processor");
}

}  // namespace astroclip::nn

#endif
