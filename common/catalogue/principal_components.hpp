#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace astroclip::catalogue {

// The directions of largest variance of a sample.
struct PrincipalComponents {
    at::Tensor mean;        // [d] float32
    at::Tensor directions;  // [d, k] float32, orthonormal, largest variance first

    // sample [n, d], n >= 2; k is cut to min(n, d). In float64, from the smaller of the two Gram matrices.
    static PrincipalComponents of(const at::Tensor& sample, std::int64_t k);
    at::Tensor project(const at::Tensor& x) const;  // [m, d] -> [m, k]
};

}  // namespace astroclip::catalogue
