#pragma once

#include <vector>

#include "config/options.hpp"
#include "nn/layers.hpp"

namespace astroclip::nn {

struct DinoHeadConfig {
    int hidden = 2048;
    int bottleneck = 256;
    int prototypes = 65536;
    int layers = 3;  // Linear layers before the prototypes
};
void bind(config::Section options, DinoHeadConfig& config);

// Projection head of DINOv2: MLP with GELU, L2 normalisation, weight-normalised Linear onto the prototypes.
// x [..., width] -> logits [..., prototypes] = features(x)·prototypes()ᵀ
class DinoHeadImpl : public Layer {
public:
    DinoHeadImpl(std::int64_t width, const DinoHeadConfig& config);
    at::Tensor forward(const at::Tensor& x) const;
    at::Tensor features(const at::Tensor& x) const;  // unit rows [..., bottleneck]
    at::Tensor prototypes() const;                   // [prototypes, bottleneck], weight-normalised

private:
    std::vector<Linear> mlp_;
    at::Tensor weight_g_;  // [prototypes, 1]
    at::Tensor weight_v_;  // [prototypes, bottleneck]
};
TORCH_MODULE(DinoHead);

}  // namespace astroclip::nn
