#include "nn/dino_head.hpp"

#include <ATen/ATen.h>

#include <string>

#include "core/error.hpp"

namespace astroclip::nn {

void bind(config::Section options, DinoHeadConfig& config)
{
    options.option("head-hidden", config.hidden, "hidden width of the projection head", config::at_least(1))
        .option("head-bottleneck", config.bottleneck, "width before the prototypes", config::at_least(1))
        .option("prototypes", config.prototypes, "outputs of the projection head", config::at_least(2))
        .option("head-layers", config.layers, "Linear layers of the projection head before the prototypes",
                config::at_least(2));
}

DinoHeadImpl::DinoHeadImpl(std::int64_t width, const DinoHeadConfig& config)
{
    if (config.layers < 2)
        throw ConfigError("head-layers = " + std::to_string(config.layers) + ": at least 2");
    const auto weights = Start::truncated_normal(0.02, 2);
    const auto layers = register_module("mlp", std::make_shared<torch::nn::Module>());
    for (int i = 0; i < config.layers; ++i) {
        const std::int64_t in = i == 0 ? width : config.hidden;
        const std::int64_t out = i + 1 == config.layers ? config.bottleneck : config.hidden;
        // Every second number: the published head counts its activations too.
        mlp_.push_back(
            layers->register_module(std::to_string(2 * i), Linear(in, out, weights, Start::constant(0))));
    }
    const auto last = register_module("last_layer", std::make_shared<Layer>());
    weight_g_ = last->add_parameter("weight_g", {config.prototypes, 1}, Start::constant(1));
    weight_v_ = last->add_parameter("weight_v", {config.prototypes, config.bottleneck},
                                    framework_default(config.bottleneck));
}

at::Tensor DinoHeadImpl::forward(const at::Tensor& x) const
{
    auto y = mlp_.front()->forward(x);
    for (std::size_t i = 1; i < mlp_.size(); ++i) {
        y = mlp_[i]->forward(at::gelu(y));
    }
    const double eps = y.scalar_type() == at::kHalf ? 1e-6 : 1e-12;
    y = y / y.norm(2, {-1}, true).clamp_min(eps);
    return at::linear(y, at::_weight_norm(weight_v_, weight_g_, 0));
}

}  // namespace astroclip::nn
