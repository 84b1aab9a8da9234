#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

namespace astroclip::train {

// teacher <- momentum · teacher + (1 - momentum) · student, tensor by tensor, without gradient.
void ema(const std::vector<at::Tensor>& teacher, const std::vector<at::Tensor>& student, double momentum);

}  // namespace astroclip::train
