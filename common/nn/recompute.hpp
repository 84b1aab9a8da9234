#pragma once

#include <ATen/core/Tensor.h>

#include <functional>

namespace astroclip::nn {

// part(x), whose inner activations are not kept for the backward pass but computed again when it comes there
// (activation checkpointing, Chen et al. 2016, arXiv 1604.06174): less memory, a second forward pass, the
// same gradients to the bit. `part` must give the same each time, outlive the backward pass, and compute on
// the device of `x`, whose autocast is then as it was at first.
at::Tensor recomputed(const std::function<at::Tensor(const at::Tensor&)>& part, const at::Tensor& x);

}  // namespace astroclip::nn
