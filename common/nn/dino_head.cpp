#include "nn/dino_head.hpp"

#include <ATen/ATen.h>

#include <string>

namespace astroclip::nn {

void bind(config::Section options, DinoHeadConfig& config)
{
    options.option("head-hidden", config.hidden, "hidden width of the projection head", config::at_least(1))
        .option("head-bottleneck", config.bottleneck, "width before the prototypes", config::at_least(1))
        .option("prototypes", config.prototypes, "outputs of the projection head", config::at_least(2))
        .option("head-layers", config.layers, "Linear layers of the projection head before the prototypes",
                config::at_least(1));
}

DinoHeadImpl::DinoHeadImpl(std::int64_t width, const DinoHeadConfig& config)
{
    const auto linear = [](std::int64_t in, std::int64_t out) {
        return Linear(in, out, Start::truncated_normal(0.02, 2), Start::constant(0));
    };
    if (config.layers == 1) {  // published without a number then
        mlp_.push_back(register_module("mlp", linear(width, config.bottleneck)));
    } else {
        const auto layers = register_module("mlp", std::make_shared<torch::nn::Module>());
        for (int i = 0; i < config.layers; ++i) {
            const std::int64_t in = i == 0 ? width : config.hidden;
            const std::int64_t out = i + 1 == config.layers ? config.bottleneck : config.hidden;
            // Every second number: the published head counts its activations too.
            mlp_.push_back(layers->register_module(std::to_string(2 * i), linear(in, out)));
        }
    }
    const auto last = register_module("last_layer", std::make_shared<Layer>());
    weight_g_ = last->add_parameter("weight_g", {config.prototypes, 1}, Start::constant(1));
    weight_v_ = last->add_parameter("weight_v", {config.prototypes, config.bottleneck},
                                    framework_default(config.bottleneck));
}

at::Tensor DinoHeadImpl::features(const at::Tensor& x) const
{
    auto y = mlp_.front()->forward(x);
    for (std::size_t i = 1; i < mlp_.size(); ++i) {
        y = mlp_[i]->forward(at::gelu(y));
    }
    const auto type = y.scalar_type();
    const auto wide = type == at::kHalf || type == at::kBFloat16 ? y.to(at::kFloat) : y;
    return (wide / wide.norm(2, {-1}, true).clamp_min(type == at::kHalf ? 1e-6 : 1e-12)).to(type);
}

at::Tensor DinoHeadImpl::prototypes() const { return at::_weight_norm(weight_v_, weight_g_, 0); }

at::Tensor DinoHeadImpl::forward(const at::Tensor& x) const { return at::linear(features(x), prototypes()); }

}  // namespace astroclip::nn
