#pragma once

#include <ATen/core/Tensor.h>

namespace astroclip::nn {

// Linear layers with what follows them, with gradients. On CPUs that have it by nn/cpu_linear.hpp, else by
// LibTorch; under autocast the products are of its type. x [..., K], weight [N, K], bias [N].

// x Wᵀ + b. -> [..., N]
at::Tensor linear(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias);
// GELU (erf) of that.
at::Tensor linear_gelu(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias);
// residual + scale ∘ (x Wᵀ + b), of either what is defined; scale [N], residual [..., N].
at::Tensor linear_branch(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                         const at::Tensor& scale, const at::Tensor& residual);

}  // namespace astroclip::nn
