#include "train/ema.hpp"

#include <ATen/ATen.h>

namespace astroclip::train {

void ema(const std::vector<at::Tensor>& teacher, const std::vector<at::Tensor>& student, double momentum)
{
    const at::NoGradGuard no_grad;
    at::_foreach_mul_(teacher, momentum);
    at::_foreach_add_(teacher, student, 1.0 - momentum);
}

}  // namespace astroclip::train
