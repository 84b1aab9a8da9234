#include "ssl/masked_spectrum_loss.hpp"

#include <ATen/ATen.h>

#include "core/error.hpp"

namespace astroclip::ssl {

MaskedSums masked_sums(const at::Tensor& prediction, const at::Tensor& target, const at::Tensor& masked_input,
                       const at::Tensor& weight)
{
    const auto type = prediction.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
    const auto changed = (masked_input != target).to(type);
    const auto error = (prediction.to(type) - target.to(type)) * changed;
    if (weight.defined()) {
        return {(error.square() * weight).sum(), (changed * weight).sum()};
    }
    return {error.square().sum(), changed.sum()};
}

MaskedRatio masked_ratio(const std::string& name)
{
    if (name != "global" && name != "rank") {
        throw ConfigError("loss-ratio = '" + name + "': global or rank");
    }
    return name == "global" ? MaskedRatio::global : MaskedRatio::rank;
}

MaskedLoss masked_spectrum_loss(comm::Communicator& ranks, const MaskedSums& local, MaskedRatio ratio)
{
    const auto own_count = local.count.item<double>();
    const auto own_weight = own_count > 0 ? 1.0 / own_count : 0.0;
    const auto own = local.squared_error.detach().to(at::kDouble);
    auto sums = at::stack({own, local.count.to(at::kDouble), own * own_weight});
    ranks.all_reduce_sum(sums);
    MaskedLoss result;
    result.count = sums[1].item<double>();
    if (ratio == MaskedRatio::rank) {
        result.loss = sums[2].item<double>() / ranks.size();
        result.share = local.squared_error * own_weight;
        return result;
    }
    const auto weight = result.count > 0 ? 1.0 / result.count : 0.0;
    result.loss = sums[0].item<double>() * weight;
    result.share = local.squared_error * (weight * ranks.size());
    return result;
}

}  // namespace astroclip::ssl
