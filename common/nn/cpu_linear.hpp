#pragma once

#include <ATen/core/Tensor.h>

namespace astroclip::nn {

// Layers of a transformer on CPUs with AVX-512, with what surrounds them done tile by tile while the product
// is in the cache: bias, GELU, LayerScale and the sum with the residual stream. The products are oneDNN's
// (at::native::cpublas::brgemm) on factors that are packed once a call. Each number is summed up in one order
// by one thread, so the results depend neither on threads nor, with rows enough to come here, on the batch.

// y = scale ∘ (x Wᵀ + bias)
struct CpuLinear {
    at::Tensor weight;  // [N, K] float32
    at::Tensor bias;    // [N] float32
    at::Tensor scale;   // [N] float32; undefined: 1
};

// Is x [M, K], of type float32 or bfloat16, worth it? N a multiple of 64, K of 64, and rows enough to pay for
// the packing.
bool has_cpu_linear(const at::Tensor& x, const at::Tensor& weight);

// residual + y, or y alone. x [M, K] contiguous, residual [M, N] float32, contiguous. -> [M, N], float32 with
// a scale or a residual, else of x's type.
at::Tensor cpu_linear(const at::Tensor& x, const CpuLinear& layer, const at::Tensor& residual = {});

// y and GELU(y) (erf), both of x's type; y is left undefined unless `keep`.
struct Activation {
    at::Tensor before, after;
};
Activation cpu_linear_gelu(const at::Tensor& x, const CpuLinear& layer, bool keep);

// dy·GELU'(before), elementwise; of `before`'s type, dy too.
at::Tensor cpu_gelu_gradient(const at::Tensor& before, const at::Tensor& dy);

// dy [M, N] of x's type. Of x in x's type; of the parameters in float32.
at::Tensor cpu_linear_input_gradient(const at::Tensor& dy, const CpuLinear& layer);
struct LinearGradients {
    at::Tensor weight, bias, scale;  // scale: undefined without layer.scale
};
LinearGradients cpu_linear_gradients(const at::Tensor& x, const at::Tensor& dy, const CpuLinear& layer);

}  // namespace astroclip::nn
