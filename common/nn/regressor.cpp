#include "nn/regressor.hpp"

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <memory>

#include "core/error.hpp"

namespace astroclip::nn {
namespace {

constexpr const char* of_images = "supervised-resnet18";
constexpr const char* of_spectra = "supervised-conv-att";

RegressorConfig regressor_config(const WeightsFile& file)
{
    const auto text = [&](const char* key) {
        const auto found = file.metadata().find(key);
        return found == file.metadata().end() ? std::string() : found->second;
    };
    const auto model = text("model"), targets = text("targets");
    if (model != of_images && model != of_spectra) {
        throw DataError(file.path(), fmt::format("holds the model '{}', expected '{}' or '{}', which "
                                                 "astroclip-train-supervised publishes",
                                                 model, of_images, of_spectra));
    }
    RegressorConfig config{.modality = model == of_images ? "image" : "spectrum", .targets = {}};
    for (std::size_t begin = 0; begin < targets.size();) {
        const auto end = std::min(targets.find(',', begin), targets.size());
        config.targets.push_back(targets.substr(begin, end - begin));
        begin = end + 1;
    }
    if (model == of_images) {
        config.resnet_width = static_cast<int>(file.tensor("model.resnet.conv1.weight").size(0));
    }
    return config;
}

}  // namespace

RegressorImpl::RegressorImpl(const RegressorConfig& config) : config_(config)
{
    const auto outputs = static_cast<std::int64_t>(config.targets.size());
    if (outputs == 0) {
        throw ConfigError("'targets' is empty: there is nothing to predict");
    }
    if (config.modality == "image") {
        resnet = ResNet(ResNetConfig{.layers = 18,
                                     .embed_dim = static_cast<int>(outputs),
                                     .projection = false,
                                     .stem_width = config.resnet_width});
        register_module("model", std::make_shared<torch::nn::Module>())->register_module("resnet", resnet);
    } else if (config.modality == "spectrum") {
        spectrum_network = register_module("model", ConvolutionAttention(outputs));
    } else {
        throw ConfigError(fmt::format("'modality' = {}: image or spectrum expected", config.modality));
    }
    target_mean = register_buffer("target_mean", at::zeros({outputs}, at::kDouble));
    target_std = register_buffer("target_std", at::ones({outputs}, at::kDouble));
}

at::Tensor RegressorImpl::forward(const at::Tensor& x) const
{
    return resnet ? resnet->forward(x) : spectrum_network->forward(x);
}

at::Tensor RegressorImpl::predict(const at::Tensor& x) const
{
    const at::NoGradGuard no_grad;
    return (forward(x).to(at::kDouble) * target_std + target_mean).to(at::kCPU);
}

Metadata describe(const RegressorConfig& config)
{
    return {{"model", config.modality == "image" ? of_images : of_spectra},
            {"targets", fmt::format("{}", fmt::join(config.targets, ","))}};
}

Regressor load_regressor(const WeightsFile& file)
{
    Regressor model(regressor_config(file));
    load_strict(*model, file);
    model->eval();
    return model;
}

}  // namespace astroclip::nn
