#pragma once

#include <ATen/core/Tensor.h>

namespace astroclip::nn {

// softmax(q kᵀ / sqrt(d)) v on CPUs with AVX-512, with AMX or without, where LibTorch's own kernel spends
// most of a step: for the sequences of galaxies (some hundred tokens) a block of queries against all keys
// fits the cache, so the softmax needs no second pass, and the matrix products are oneDNN's
// (at::native::cpublas::brgemm). Sums, softmax and its gradient are float32. The backward pass computes the
// weights again from `lse`.
//
//   q [B, H, M, d], k, v [B, H, N, d]  float32 or all bfloat16, d contiguous, d a multiple of 16
//   lse [B, H, M] float32, log of the softmax's denominator
bool has_cpu_attention(const at::Tensor& q);

struct AttentionResult {
    at::Tensor mixed;  // [B, M, H·d], of q's type
    at::Tensor lse;
};
AttentionResult cpu_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v);

// Writes the gradients into dq, dk and dv, of the shapes of q, k and v with strides of their own.
// mixed_gradient [B, M, H·d] contiguous.
void cpu_attention_backward(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                            const AttentionResult& result, const at::Tensor& mixed_gradient,
                            const at::Tensor& dq, const at::Tensor& dk, const at::Tensor& dv);

}  // namespace astroclip::nn
