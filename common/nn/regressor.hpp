#pragma once

#include <string>
#include <vector>

#include "nn/convolution_attention.hpp"
#include "nn/resnet.hpp"
#include "nn/weights.hpp"

namespace astroclip::nn {

struct RegressorConfig {
    std::string modality = "image";    // image: a ResNet-18; spectrum: convolutions and attention
    std::vector<std::string> targets;  // what its outputs are
    int resnet_width = 64;             // channels of the first stage
};

// AstroCLIP's supervised baselines: a network that predicts numbers from images or spectra, with the scale
// that its outputs are to be read in. Parameters, as published: model.resnet.*, or model.conv1.* … of the
// spectra's; ours beside them: target_mean, target_std.
class RegressorImpl : public torch::nn::Module {
public:
    explicit RegressorImpl(const RegressorConfig& config);  // ConfigError: another modality, or no targets

    // images [B, 3, S, S] in [0, 1] or spectra [B, L] -> [B, targets], of mean 0 and deviation 1 in training
    at::Tensor forward(const at::Tensor& x) const;
    at::Tensor predict(const at::Tensor& x) const;  // in the targets' own units, float64 on the CPU

    const RegressorConfig& config() const { return config_; }

    ResNet resnet{nullptr};  // one of the two is the network
    ConvolutionAttention spectrum_network{nullptr};
    at::Tensor target_mean, target_std;  // [targets] float64; at first 0 and 1

private:
    RegressorConfig config_;
};
TORCH_MODULE(Regressor);

// In a model's metadata: `model` = supervised-resnet18 | supervised-conv-att, and the targets.
Metadata describe(const RegressorConfig& config);
// In evaluation mode. DataError if the file holds no such model.
Regressor load_regressor(const WeightsFile& file);

}  // namespace astroclip::nn
