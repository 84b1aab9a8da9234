#include "nn/cpu_attention.hpp"

#include "core/error.hpp"

#if defined(__x86_64__)

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <cmath>
#include <cstring>

#include "core/rounding.hpp"
#include "nn/brgemm.hpp"

namespace astroclip::nn {
namespace {

using at::BFloat16;
using at::native::cpublas::brgemm;

constexpr std::int64_t query_block = 64, key_block = 64;

std::int64_t padded(std::int64_t n) { return rounded_up(n, lanes); }

// to[i] = factor·from[i]; n is a multiple of 16.
template <typename T>
ASTROCLIP_AVX512 void scaled(const float* from, float factor, std::int64_t n, T* to)
{
    for (std::int64_t i = 0; i < n; i += lanes) {
        store(to + i, _mm512_mul_ps(load(from + i), _mm512_set1_ps(factor)));
    }
}

// weights[i] = exp(scale·(score[i] - largest)), zeros from n to padded(n); gives their sum and the largest.
struct Softmax {
    float largest, sum;
};
template <typename T>
ASTROCLIP_AVX512 Softmax softmax(const float* score, std::int64_t n, float scale, T* weights)
{
    const auto low = _mm512_set1_ps(-INFINITY);
    auto most = low;
    for (std::int64_t i = 0; i < n; i += lanes) {
        most = _mm512_max_ps(most, _mm512_mask_loadu_ps(low, first_lanes(n - i), score + i));
    }
    const float largest = _mm512_reduce_max_ps(most);
    auto sum = _mm512_setzero_ps();
    for (std::int64_t i = 0; i < n; i += lanes) {
        const auto part = first_lanes(n - i);
        const auto x = _mm512_sub_ps(_mm512_maskz_loadu_ps(part, score + i), _mm512_set1_ps(largest));
        const auto y = _mm512_maskz_mov_ps(part, exp_of(_mm512_mul_ps(x, _mm512_set1_ps(scale))));
        sum = _mm512_add_ps(sum, y);
        store(weights + i, y);
    }
    return {largest, _mm512_reduce_add_ps(sum)};
}

// One key's row of the backward pass, over n queries: weight = exp(scale·score - lse), and the score's
// gradient weight·(weight_gradient - delta); zeros from n to padded(n).
template <typename T>
ASTROCLIP_AVX512 void weights_and_gradient(const float* score, const float* weight_gradient, const float* lse,
                                           const float* delta, std::int64_t n, float scale, T* weight,
                                           T* score_gradient)
{
    for (std::int64_t i = 0; i < n; i += lanes) {
        const auto part = first_lanes(n - i);
        const auto x = _mm512_fmsub_ps(load(score + i), _mm512_set1_ps(scale), load(lse + i));
        const auto w = _mm512_maskz_mov_ps(part, exp_of(_mm512_min_ps(_mm512_setzero_ps(), x)));
        store(weight + i, w);
        const auto g = _mm512_sub_ps(load(weight_gradient + i), load(delta + i));
        store(score_gradient + i, _mm512_maskz_mul_ps(part, w, g));
    }
}

template <typename T>
ASTROCLIP_AVX512 float dot(const T* a, const T* b, std::int64_t n)
{
    auto sum = _mm512_setzero_ps();
    for (std::int64_t i = 0; i < n; i += lanes) {
        sum = _mm512_fmadd_ps(load(a + i), load(b + i), sum);
    }
    return _mm512_reduce_add_ps(sum);
}

// The right factor of a product as brgemm wants it: rows [n, columns] as they are in float32, in pairs side
// by side in bfloat16 (n even, or a row of zeros is added).
void pack_rows(const float* from, std::int64_t stride, std::int64_t n, std::int64_t columns, float* to)
{
    for (std::int64_t i = 0; i < n; ++i) {
        std::memcpy(to + i * columns, from + i * stride, static_cast<std::size_t>(columns) * sizeof(float));
    }
}
ASTROCLIP_AVX512 inline __m512i widened(const BFloat16* from)
{
    return _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)));
}
ASTROCLIP_AVX512 void pack_rows(const BFloat16* from, std::int64_t stride, std::int64_t n,
                                std::int64_t columns, BFloat16* to)
{
    for (std::int64_t i = 0; i < n; i += 2) {
        const auto* even = from + i * stride;
        for (std::int64_t j = 0; j < columns; j += lanes) {
            const auto odd = i + 1 < n ? widened(even + stride + j) : _mm512_setzero_si512();
            const auto pairs = _mm512_or_si512(widened(even + j), _mm512_slli_epi32(odd, 16));
            _mm512_storeu_si512(to + i * columns + 2 * j, pairs);
        }
    }
}

// The same of the transposed matrix: `from` holds n rows of d values, `to` is [d, padded(n)].
void pack_transposed(const float* from, std::int64_t stride, std::int64_t n, std::int64_t d, float* to)
{
    const auto columns = padded(n);
    for (std::int64_t j = 0; j < d; ++j) {
        for (std::int64_t i = 0; i < columns; ++i) {
            to[j * columns + i] = i < n ? from[i * stride + j] : 0;
        }
    }
}
void pack_transposed(const BFloat16* from, std::int64_t stride, std::int64_t n, std::int64_t d, BFloat16* to)
{
    const auto columns = padded(n);
    std::memset(static_cast<void*>(to), 0, static_cast<std::size_t>(d * columns) * sizeof(BFloat16));
    for (std::int64_t i = 0; i < n; ++i) {
        for (std::int64_t j = 0; j < d; j += 2) {  // a pair of values stays together
            std::memcpy(static_cast<void*>(to + j * columns + 2 * i), from + i * stride + j,
                        2 * sizeof(BFloat16));
        }
    }
}

// One head of one sample.
template <typename T>
struct Head {
    Head(const at::Tensor& x, std::int64_t sample, std::int64_t head)
        : data(x.data_ptr<T>() + sample * x.stride(0) + head * x.stride(1)),
          stride(x.stride(2)),
          rows(x.size(2))
    {
    }
    T* row(std::int64_t i) const { return data + i * stride; }

    T* data;
    std::int64_t stride, rows;
};

template <typename T>
struct Buffer {
    explicit Buffer(std::int64_t n)
        : tensor(at::zeros({n}, c10::CppTypeToScalarType<T>::value)), data(tensor.template data_ptr<T>())
    {
    }
    operator T*() const { return data; }
    at::Tensor tensor;
    T* data;
};

template <typename T>
class Forward {
public:
    Forward(std::int64_t keys, std::int64_t d)
        : keys_(keys),
          wide_(padded(keys)),
          d_(d),
          scale_(1 / std::sqrt(static_cast<float>(d))),
          keys_t_(d * wide_),
          values_(wide_ * d),
          scores_(query_block * wide_),
          weights_(query_block * wide_),
          mixed_(query_block * d)
    {
    }

    void run(const Head<T>& q, const Head<T>& k, const Head<T>& v, const Head<T>& out, float* lse)
    {
        pack_transposed(k.data, k.stride, keys_, d_, keys_t_);
        pack_rows(v.data, v.stride, keys_, d_, values_);
        for (std::int64_t first = 0; first < q.rows; first += query_block) {
            const auto rows = std::min(query_block, q.rows - first);
            brgemm(rows, wide_, d_, q.stride, wide_, wide_, false, q.row(first), keys_t_, scores_);
            Softmax of_row[query_block];
            for (std::int64_t i = 0; i < rows; ++i) {
                of_row[i] = softmax<T>(scores_ + i * wide_, keys_, scale_, weights_ + i * wide_);
            }
            brgemm(rows, d_, wide_, wide_, d_, d_, false, weights_, values_, mixed_);
            for (std::int64_t i = 0; i < rows; ++i) {
                scaled(mixed_ + i * d_, 1 / of_row[i].sum, d_, out.row(first + i));
                lse[first + i] = scale_ * of_row[i].largest + std::log(of_row[i].sum);
            }
        }
    }

private:
    std::int64_t keys_, wide_, d_;
    float scale_;
    Buffer<T> keys_t_, values_;
    Buffer<float> scores_;
    Buffer<T> weights_;
    Buffer<float> mixed_;
};

// Transposed throughout, so that a key's row of weights meets contiguous statistics of the queries.
template <typename T>
class Backward {
public:
    Backward(std::int64_t queries, std::int64_t d)
        : queries_(queries),
          wide_(padded(queries)),
          d_(d),
          scale_(1 / std::sqrt(static_cast<float>(d))),
          queries_t_(d * wide_),
          outputs_t_(d * wide_),
          queries_rows_(wide_ * d),
          outputs_rows_(wide_ * d),
          key_t_(d * key_block),
          weight_(key_block * wide_),
          gradient_(key_block * wide_),
          gradient_rows_(key_block * wide_),
          score_(key_block * wide_),
          weight_gradient_(key_block * wide_),
          of_queries_(d * wide_),
          of_keys_(key_block * d),
          lse_(wide_),
          delta_(wide_)
    {
    }

    // dout: gradient of out.
    void run(const Head<T>& q, const Head<T>& k, const Head<T>& v, const Head<T>& out, const float* lse,
             const Head<T>& dout, const Head<T>& dq, const Head<T>& dk, const Head<T>& dv)
    {
        pack_transposed(q.data, q.stride, queries_, d_, queries_t_);
        pack_transposed(dout.data, dout.stride, queries_, d_, outputs_t_);
        pack_rows(q.data, q.stride, queries_, d_, queries_rows_);
        pack_rows(dout.data, dout.stride, queries_, d_, outputs_rows_);
        for (std::int64_t i = 0; i < queries_; ++i) {
            lse_[i] = lse[i];
            delta_[i] = dot(out.row(i), dout.row(i), d_);
        }
        for (std::int64_t first = 0; first < k.rows; first += key_block) {
            of_key_block(first, std::min(key_block, k.rows - first), k, v, dk, dv);
        }
        for (std::int64_t i = 0; i < queries_; ++i) {
            for (std::int64_t j = 0; j < d_; ++j) {
                dq.row(i)[j] = static_cast<T>(scale_ * of_queries_[j * wide_ + i]);
            }
        }
    }

private:
    void of_key_block(std::int64_t first, std::int64_t rows, const Head<T>& k, const Head<T>& v,
                      const Head<T>& dk, const Head<T>& dv)
    {
        brgemm(rows, wide_, d_, k.stride, wide_, wide_, false, k.row(first), queries_t_, score_);
        brgemm(rows, wide_, d_, v.stride, wide_, wide_, false, v.row(first), outputs_t_, weight_gradient_);
        for (std::int64_t i = 0; i < rows; ++i) {
            const auto at = i * wide_;
            weights_and_gradient<T>(score_ + at, weight_gradient_ + at, lse_, delta_, queries_, scale_,
                                    weight_ + at, gradient_ + at);
        }
        brgemm(rows, d_, wide_, wide_, d_, d_, false, weight_, outputs_rows_, of_keys_);
        write(rows, 1, dv.row(first), dv.stride);
        brgemm(rows, d_, wide_, wide_, d_, d_, false, gradient_, queries_rows_, of_keys_);
        write(rows, scale_, dk.row(first), dk.stride);

        pack_rows(gradient_, wide_, rows, wide_, gradient_rows_);
        for (std::int64_t j = 0; j < d_; ++j) {
            for (std::int64_t i = 0; i < key_block; ++i) {
                key_t_[j * key_block + i] = i < rows ? k.row(first + i)[j] : T(0);
            }
        }
        const auto even = (rows + 1) / 2 * 2;
        brgemm(d_, wide_, even, key_block, wide_, wide_, first > 0, key_t_, gradient_rows_, of_queries_);
    }

    void write(std::int64_t rows, float factor, T* to, std::int64_t stride)
    {
        for (std::int64_t i = 0; i < rows; ++i) {
            scaled(of_keys_ + i * d_, factor, d_, to + i * stride);
        }
    }

    std::int64_t queries_, wide_, d_;
    float scale_;
    Buffer<T> queries_t_, outputs_t_, queries_rows_, outputs_rows_, key_t_;  // packed factors
    Buffer<T> weight_, gradient_, gradient_rows_;                            // [key_block, wide_]
    Buffer<float> score_, weight_gradient_;                                  // [key_block, wide_]
    Buffer<float> of_queries_, of_keys_, lse_, delta_;                       // [d, wide_], [key_block, d]
};

// Calls work(sample, head) for all heads, each thread with a kernel of its own.
template <typename Kernel, typename T, typename Work>
void for_each_head(const at::Tensor& q, std::int64_t rows, const Work& work)
{
    const auto heads = q.size(1), d = q.size(3);
    at::parallel_for(0, q.size(0) * heads, 1, [&](std::int64_t begin, std::int64_t end) {
        Kernel kernel(rows, d);
        for (auto i = begin; i < end; ++i) {
            work(kernel, i / heads, i % heads);
        }
        at::native::cpublas::brgemm_release(std::is_same_v<T, BFloat16>);
    });
}

// [B, M, H·d] as [B, H, M, d].
at::Tensor by_head(const at::Tensor& mixed, std::int64_t heads)
{
    return mixed.view({mixed.size(0), mixed.size(1), heads, -1}).transpose(1, 2);
}

template <typename T>
void forward(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const AttentionResult& result)
{
    const auto out = by_head(result.mixed, q.size(1));
    for_each_head<Forward<T>, T>(q, k.size(2), [&](Forward<T>& kernel, std::int64_t b, std::int64_t h) {
        auto* lse = result.lse.data_ptr<float>() + (b * q.size(1) + h) * q.size(2);
        kernel.run({q, b, h}, {k, b, h}, {v, b, h}, {out, b, h}, lse);
    });
}

template <typename T>
void backward(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const AttentionResult& result,
              const at::Tensor& gradient, const at::Tensor& dq, const at::Tensor& dk, const at::Tensor& dv)
{
    const auto out = by_head(result.mixed, q.size(1)), dout = by_head(gradient, q.size(1));
    for_each_head<Backward<T>, T>(q, q.size(2), [&](Backward<T>& kernel, std::int64_t b, std::int64_t h) {
        const auto* lse = result.lse.const_data_ptr<float>() + (b * q.size(1) + h) * q.size(2);
        kernel.run({q, b, h}, {k, b, h}, {v, b, h}, {out, b, h}, lse, {dout, b, h}, {dq, b, h}, {dk, b, h},
                   {dv, b, h});
    });
}

}  // namespace

bool has_cpu_attention(const at::Tensor& q)
{
    const auto type = q.scalar_type();
    return q.is_cpu() && (type == at::kFloat || type == at::kBFloat16) && q.size(3) % lanes == 0 &&
           has_brgemm();
}

AttentionResult cpu_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v)
{
    const auto heads = q.size(1);
    AttentionResult result{at::empty({q.size(0), q.size(2), heads * q.size(3)}, q.options()),
                           at::empty({q.size(0), heads, q.size(2)}, q.options().dtype(at::kFloat))};
    q.scalar_type() == at::kFloat ? forward<float>(q, k, v, result) : forward<BFloat16>(q, k, v, result);
    return result;
}

void cpu_attention_backward(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                            const AttentionResult& result, const at::Tensor& mixed_gradient,
                            const at::Tensor& dq, const at::Tensor& dk, const at::Tensor& dv)
{
    q.scalar_type() == at::kFloat ? backward<float>(q, k, v, result, mixed_gradient, dq, dk, dv)
                                  : backward<BFloat16>(q, k, v, result, mixed_gradient, dq, dk, dv);
}

}  // namespace astroclip::nn

#else

namespace astroclip::nn {

bool has_cpu_attention(const at::Tensor&) { return false; }

AttentionResult cpu_attention(const at::Tensor&, const at::Tensor&, const at::Tensor&)
{
    throw InternalError("attention by AVX-512 on another processor");
}

void cpu_attention_backward(const at::Tensor&, const at::Tensor&, const at::Tensor&, const AttentionResult&,
                            const at::Tensor&, const at::Tensor&, const at::Tensor&, const at::Tensor&)
{
    throw InternalError("attention by AVX-512 on another processor");
}

}  // namespace astroclip::nn

#endif
