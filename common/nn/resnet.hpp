#pragma once

#include <cstdint>
#include <vector>

#include "config/options.hpp"
#include "nn/layers.hpp"

namespace astroclip::nn {

struct ResNetConfig {
    int layers = 50;  // 50: bottleneck blocks, 18: basic blocks
    int channels = 3;
    int embed_dim = 128;     // outputs of fc: of the projection that the contrastive loss reads
    bool projection = true;  // fc is the projection of MoCo v2; false: one linear layer
    int stem_width = 64;     // channels of the first stage; each further one doubles them
};
void bind(config::Section options, ResNetConfig& config);

// Square convolution without bias; padding kernel/2. x [B, in, H, W] -> [B, out, ~H/stride, ~W/stride]
class ConvolutionImpl : public Layer {
public:
    ConvolutionImpl(std::int64_t in, std::int64_t out, std::int64_t kernel, std::int64_t stride);
    at::Tensor forward(const at::Tensor& x) const;

private:
    at::Tensor weight_;  // [out, in, kernel, kernel]; starts as He et al. 2015, by fan out
    std::int64_t stride_, padding_;
};
TORCH_MODULE(Convolution);

// Batch normalisation over B, H and W, eps 1e-5. In training mode by the batch's own statistics, which the
// running ones follow with momentum 0.1 (variance unbiased); else by the running ones.
class BatchNormImpl : public Layer {
public:
    explicit BatchNormImpl(std::int64_t width);
    at::Tensor forward(const at::Tensor& x) const;

private:
    at::Tensor weight_, bias_, running_mean_, running_var_;  // [width]
    at::Tensor num_batches_tracked_;                         // int64
};
TORCH_MODULE(BatchNorm);

// Linear, ReLU, Linear under the names 0 and 2: the projection of MoCo v2. [B, in] -> [B, out]
class ProjectionImpl : public torch::nn::Module {
public:
    ProjectionImpl(std::int64_t in, std::int64_t out);
    at::Tensor forward(const at::Tensor& x) const;

private:
    Linear expand_{nullptr}, contract_{nullptr};
};
TORCH_MODULE(Projection);

// Residual block (He et al. 2016): convolutions conv1, conv2, … each with its bnN, and the shortcut, which
// is a convolution (downsample) where the shape changes. Bottlenecks stride in their 3x3 convolution.
class ResNetBlockImpl : public torch::nn::Module {
public:
    struct Step {
        std::int64_t out, kernel, stride;
    };
    ResNetBlockImpl(std::int64_t in, const std::vector<Step>& steps);
    at::Tensor forward(const at::Tensor& x) const;

private:
    std::vector<std::pair<Convolution, BatchNorm>> steps_;
    Convolution shortcut_{nullptr};
    BatchNorm shortcut_norm_{nullptr};
};
TORCH_MODULE(ResNetBlock);

// ResNet under torchvision's names; its classifier fc is the projection of MoCo v2 (Stein et al. 2021) or, as
// torchvision's, one linear layer. Starts in training mode, as modules do.
//
//   images  [B, channels, H, W] float32
class ResNetImpl : public torch::nn::Module {
public:
    static constexpr int stages = 4;

    explicit ResNetImpl(const ResNetConfig& config);

    at::Tensor features(const at::Tensor& images) const;   // average-pooled, [B, width()]
    at::Tensor project(const at::Tensor& features) const;  // [B, embed_dim]
    at::Tensor forward(const at::Tensor& images) const { return project(features(images)); }

    at::Tensor stem(const at::Tensor& images) const;          // conv1, bn1, max-pooling
    at::Tensor stage(int number, const at::Tensor& x) const;  // layer1 (number 0) to layer4

    std::int64_t width() const { return width_; }  // 2048 or 512 with the published stem
    const ResNetConfig& config() const { return config_; }

private:
    ResNetConfig config_;
    std::int64_t width_;
    Convolution conv1_{nullptr};
    BatchNorm bn1_{nullptr};
    std::vector<ResNetBlock> layers_[stages];
    Projection projection_{nullptr};  // one of the two is fc
    Linear linear_{nullptr};
};
TORCH_MODULE(ResNet);

}  // namespace astroclip::nn
