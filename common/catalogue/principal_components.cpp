#include "catalogue/principal_components.hpp"

#include <ATen/ATen.h>

#include <algorithm>

namespace astroclip::catalogue {

PrincipalComponents PrincipalComponents::of(const at::Tensor& sample, std::int64_t k)
{
    const auto mean = sample.to(at::kDouble).mean(0);
    const auto centred = sample.to(at::kDouble) - mean;
    const auto wanted = std::min({k, sample.size(0), sample.size(1)});
    const bool few_samples = sample.size(0) < sample.size(1);
    const auto gram = few_samples ? centred.matmul(centred.t()) : centred.t().matmul(centred);
    const auto vectors =
        std::get<1>(at::linalg_eigh(gram)).flip(1).narrow(1, 0, wanted);  // eigh: smallest first
    auto directions = few_samples ? centred.t().matmul(vectors) : vectors;
    directions = directions / directions.norm(2, 0, true).clamp_min(1e-300);
    return {mean.to(at::kFloat), directions.to(at::kFloat).contiguous()};
}

at::Tensor PrincipalComponents::project(const at::Tensor& x) const
{
    return (x.to(at::kFloat) - mean).matmul(directions);
}

}  // namespace astroclip::catalogue
