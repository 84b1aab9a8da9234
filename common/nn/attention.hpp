#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace astroclip::nn {

// Softmax attention, softmax(q kᵀ / sqrt(width/heads)) v, all heads at once; a head has `width/heads`
// consecutive columns of each of q, k and v. With gradients. On CPUs that have it by nn/cpu_attention.hpp,
// else by LibTorch.

// Of every token to every token: qkv [B, N, 3·width], the columns of q, k, v -> [B, N, width]. Causal: of
// every token to itself and those before it.
at::Tensor self_attention(const at::Tensor& qkv, std::int64_t heads, bool causal = false);

// Of some tokens to all: q [B, M, width], kv [B, N, 2·width] -> [B, M, width].
at::Tensor attention(const at::Tensor& q, const at::Tensor& kv, std::int64_t heads);

}  // namespace astroclip::nn
