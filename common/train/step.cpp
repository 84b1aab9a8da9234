#include "train/step.hpp"

#include <ATen/ATen.h>

#include <cmath>

#include "train/precision.hpp"

namespace astroclip::train {
namespace {

std::vector<at::Tensor> tensors_of(const std::vector<Parameter>& parameters)
{
    std::vector<at::Tensor> tensors;
    for (const auto& parameter : parameters) {
        tensors.push_back(parameter.tensor);
    }
    return tensors;
}

std::unique_ptr<Optimizer> make_optimizer(const Task& task, const std::vector<Parameter>& parameters,
                                          const TrainerConfig& config)
{
    if (const auto momentum = task.sgd_momentum()) return std::make_unique<Sgd>(parameters, *momentum);
    return std::make_unique<AdamW>(parameters, AdamW::Betas{config.beta1, config.beta2, config.eps});
}

}  // namespace

Step::Step(const Task& task, const TrainerConfig& config, comm::Communicator& ranks)
    : precision_(config.precision),
      clip_norm_(config.clip_norm),
      device_(ranks.device().type()),
      parameters_(task.parameters()),
      optimizer_(make_optimizer(task, parameters_, config)),
      sync_(tensors_of(parameters_), ranks, config.bucket_bytes)
{
}

Step::Gradient Step::gradient(Task& task, std::int64_t step)
{
    sync_.begin(task.gradient_parts());
    Loss loss;
    {
        const Autocast autocast(precision_, device_);
        loss = task.forward(step);
    }
    loss.share.backward();
    sync_.finish();
    Gradient result;
    result.loss = loss.share.item<double>();
    result.terms = std::move(loss.terms);
    result.finite = std::isfinite(result.loss);
    result.norms = clip_gradients(parameters_, clip_norm_);
    for (const auto& [group, norm] : result.norms) {
        result.finite = result.finite && std::isfinite(norm);
    }
    return result;
}

}  // namespace astroclip::train
