#include "nn/convolution_attention.hpp"

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <memory>
#include <string>

#include "core/error.hpp"

namespace astroclip::nn {

SpectrumConvolutionImpl::SpectrumConvolutionImpl(std::int64_t in, std::int64_t out, std::int64_t kernel)
    : weight_(add_parameter("weight", {out, in, kernel}, framework_default(in * kernel))),
      bias_(add_parameter("bias", {out}, framework_default(in * kernel))),
      padding_(kernel / 2)
{
}

at::Tensor SpectrumConvolutionImpl::forward(const at::Tensor& x) const
{
    return at::conv1d(x, weight_, bias_, 1, padding_);
}

PReluImpl::PReluImpl(std::int64_t channels)
    : weight_(add_parameter("weight", {channels}, Start::constant(0.25)))
{
}

at::Tensor PReluImpl::forward(const at::Tensor& x) const { return at::prelu(x, weight_); }

ConvolutionAttentionImpl::ConvolutionAttentionImpl(std::int64_t outputs)
{
    std::int64_t in = 1;
    for (std::size_t i = 0; i < convolutions; ++i) {
        const auto step =
            register_module("conv" + std::to_string(i + 1), std::make_shared<torch::nn::Module>());
        steps_[i] = {step->register_module("0", SpectrumConvolution(in, channels[i], kernels[i])),
                     step->register_module("2", PRelu(channels[i]))};
        in = channels[i];
    }
    const auto mlp = register_module("mlp", std::make_shared<torch::nn::Module>());
    const auto linear = [&](const char* name, std::int64_t from, std::int64_t to) {
        return mlp->register_module(name, Linear(from, to, framework_default(from), framework_default(from)));
    };
    constexpr std::int64_t width = 32;
    hidden_[0].first = linear("0", channels.back() / 2, width);
    hidden_[0].second = mlp->register_module("1", PRelu(width));
    hidden_[1].first = linear("3", width, width);
    hidden_[1].second = mlp->register_module("4", PRelu(width));
    output_ = linear("6", width, outputs);
}

at::Tensor ConvolutionAttentionImpl::forward(const at::Tensor& flux) const
{
    if (flux.dim() != 2) {
        throw DataError("spectra",
                        fmt::format("shape [{}], expected [batch, samples]", fmt::join(flux.sizes(), ", ")));
    }
    const auto type = flux.scalar_type();  // of all but matrix products, under autocast
    auto x = flux.unsqueeze(1);
    for (std::size_t i = 0; i < convolutions; ++i) {
        x = steps_[i].first->forward(x).to(type);
        x = at::instance_norm(x, {}, {}, {}, {}, true, 0.1, 1e-5, false);
        x = steps_[i].second->forward(x);
        if (i + 1 < convolutions) x = at::max_pool1d(x, kernels[i], kernels[i], kernels[i] / 2);
    }
    const auto halves = x.chunk(2, 1);
    x = (halves[0] * halves[1].softmax(2)).sum(2);
    for (const auto& [linear, slope] : hidden_) {
        x = slope->forward(linear->forward(x).to(type));
    }
    return output_->forward(x);
}

}  // namespace astroclip::nn
