#include "ssl/masked_spectrum_loss.hpp"

#include <ATen/ATen.h>

namespace astroclip::ssl {

MaskedSums masked_sums(const at::Tensor& prediction, const at::Tensor& target, const at::Tensor& masked_input)
{
    const auto type = prediction.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
    const auto changed = (masked_input != target).to(type);
    const auto error = (prediction.to(type) - target.to(type)) * changed;
    return {error.square().sum(), changed.sum()};
}

MaskedLoss masked_spectrum_loss(comm::Communicator& ranks, const MaskedSums& local)
{
    auto sums = at::stack({local.squared_error.detach(), local.count}).to(at::kDouble);
    ranks.all_reduce_sum(sums);
    MaskedLoss result;
    result.count = sums[1].item<double>();
    const auto weight = result.count > 0 ? 1.0 / result.count : 0.0;
    result.loss = sums[0].item<double>() * weight;
    result.share = local.squared_error * (weight * ranks.size());
    return result;
}

}  // namespace astroclip::ssl
