#pragma once

#include <ATen/ATen.h>

#include <cmath>
#include <cstdint>

#include "core/random.hpp"

// The test tensors behind the check values of the references: element i of tensor n is a function of (n, i)
// alone.
namespace astroclip::test {

// u(n, i) in [0, 1).
inline double fill_uniform(std::uint64_t n, std::uint64_t i)
{
    return static_cast<double>(mix64((n << 40) + i) >> 40) * 0x1p-24;
}

// T(n, shape) = 2u - 1, float32.
inline at::Tensor fill_tensor(std::uint64_t n, at::IntArrayRef shape)
{
    const auto tensor = at::empty(shape, at::kFloat);
    auto* values = tensor.data_ptr<float>();
    for (std::int64_t i = 0; i < tensor.numel(); ++i) {
        values[i] = static_cast<float>(2.0 * fill_uniform(n, static_cast<std::uint64_t>(i)) - 1.0);
    }
    return tensor;
}

}  // namespace astroclip::test
