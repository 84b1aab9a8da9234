#include "nn/resnet.hpp"

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <cmath>
#include <memory>
#include <string>
#include <utility>

#include "core/error.hpp"

namespace astroclip::nn {

void bind(config::Section options, ResNetConfig& config)
{
    options
        .option("resnet-layers", config.layers, "moco: layers of the ResNet, 18 or 50",
                config::between(18, 50))
        .option("embed-dim", config.embed_dim, "moco: width of the projection that the loss reads",
                config::at_least(1))
        .option("resnet-width", config.stem_width, "moco: channels of the ResNet's first stage",
                config::between(1, 1024));
}

ConvolutionImpl::ConvolutionImpl(std::int64_t in, std::int64_t out, std::int64_t kernel, std::int64_t stride)
    : weight_(add_parameter("weight", {out, in, kernel, kernel},
                            Start::normal(std::sqrt(2.0 / double(out * kernel * kernel))))),
      stride_(stride),
      padding_(kernel / 2)
{
}

at::Tensor ConvolutionImpl::forward(const at::Tensor& x) const
{
    return at::conv2d(x, weight_, {}, at::IntArrayRef{stride_, stride_}, at::IntArrayRef{padding_, padding_});
}

BatchNormImpl::BatchNormImpl(std::int64_t width)
    : weight_(add_parameter("weight", {width}, Start::constant(1))),
      bias_(add_parameter("bias", {width}, Start::constant(0))),
      running_mean_(register_buffer("running_mean", at::zeros({width}, at::kFloat))),
      running_var_(register_buffer("running_var", at::ones({width}, at::kFloat))),
      num_batches_tracked_(register_buffer("num_batches_tracked", at::zeros({}, at::kLong)))
{
}

at::Tensor BatchNormImpl::forward(const at::Tensor& x) const
{
    if (is_training()) num_batches_tracked_.add_(1);
    return at::batch_norm(x, weight_, bias_, running_mean_, running_var_, is_training(), 0.1, 1e-5, true);
}

ProjectionImpl::ProjectionImpl(std::int64_t in, std::int64_t out)
    : expand_(register_module("0", Linear(in, in, framework_default(in), framework_default(in)))),
      contract_(register_module("2", Linear(in, out, framework_default(in), framework_default(in))))
{
}

at::Tensor ProjectionImpl::forward(const at::Tensor& x) const
{
    return contract_->forward(at::relu(expand_->forward(x)));
}

ResNetBlockImpl::ResNetBlockImpl(std::int64_t in, const std::vector<Step>& steps)
{
    auto inputs = in;
    std::int64_t stride = 1;
    for (std::size_t i = 0; i < steps.size(); ++i) {
        const auto& [out, kernel, step_stride] = steps[i];
        const auto number = std::to_string(i + 1);
        auto convolution = register_module("conv" + number, Convolution(inputs, out, kernel, step_stride));
        auto norm = register_module("bn" + number, BatchNorm(out));
        steps_.emplace_back(convolution, norm);
        inputs = out;
        stride *= step_stride;
    }
    if (stride == 1 && inputs == in) return;
    const auto downsample = register_module("downsample", std::make_shared<torch::nn::Module>());
    shortcut_ = downsample->register_module("0", Convolution(in, inputs, 1, stride));
    shortcut_norm_ = downsample->register_module("1", BatchNorm(inputs));
}

at::Tensor ResNetBlockImpl::forward(const at::Tensor& x) const
{
    auto y = x;
    for (std::size_t i = 0; i < steps_.size(); ++i) {
        y = steps_[i].second->forward(steps_[i].first->forward(y));
        if (i + 1 < steps_.size()) y = at::relu(y);
    }
    return at::relu(y + (shortcut_ ? shortcut_norm_->forward(shortcut_->forward(x)) : x));
}

ResNetImpl::ResNetImpl(const ResNetConfig& config) : config_(config), width_(config.stem_width)
{
    if (config.layers != 50 && config.layers != 18) {
        throw ConfigError(fmt::format("a ResNet of {} layers, 18 or 50 expected", config.layers));
    }
    const bool bottleneck = config.layers == 50;
    const int blocks[stages] = {bottleneck ? 3 : 2, bottleneck ? 4 : 2, bottleneck ? 6 : 2,
                                bottleneck ? 3 : 2};
    conv1_ = register_module("conv1", Convolution(config.channels, width_, 7, 2));
    bn1_ = register_module("bn1", BatchNorm(width_));
    for (int i = 0; i < stages; ++i) {
        const auto layer =
            register_module("layer" + std::to_string(i + 1), std::make_shared<torch::nn::Module>());
        const std::int64_t narrow = std::int64_t(config.stem_width) << i;
        for (int j = 0; j < blocks[i]; ++j) {
            using Steps = std::vector<ResNetBlockImpl::Step>;
            const std::int64_t stride = i > 0 && j == 0 ? 2 : 1;
            const auto steps = bottleneck ? Steps{{narrow, 1, 1}, {narrow, 3, stride}, {4 * narrow, 1, 1}}
                                          : Steps{{narrow, 3, stride}, {narrow, 3, 1}};
            layers_[i].push_back(layer->register_module(std::to_string(j), ResNetBlock(width_, steps)));
            width_ = steps.back().out;
        }
    }
    if (config.projection) {
        projection_ = register_module("fc", Projection(width_, config.embed_dim));
    } else {
        const auto start = framework_default(width_);
        linear_ = register_module("fc", Linear(width_, config.embed_dim, start, start));
    }
}

at::Tensor ResNetImpl::stem(const at::Tensor& images) const
{
    if (images.dim() != 4 || images.size(1) != config_.channels) {
        throw DataError("images", fmt::format("shape [{}], expected [batch, {}, height, width]",
                                              fmt::join(images.sizes(), ", "), config_.channels));
    }
    return at::max_pool2d(at::relu(bn1_->forward(conv1_->forward(images))), {3, 3}, {2, 2}, {1, 1});
}

at::Tensor ResNetImpl::stage(int number, const at::Tensor& x) const
{
    auto y = x;
    for (const auto& block : layers_[number]) {
        y = block->forward(y);
    }
    return y;
}

at::Tensor ResNetImpl::features(const at::Tensor& images) const
{
    auto x = stem(images);
    for (int number = 0; number < stages; ++number) {
        x = stage(number, x);
    }
    return x.mean(at::IntArrayRef({2, 3}));
}

at::Tensor ResNetImpl::project(const at::Tensor& features) const
{
    return projection_ ? projection_->forward(features) : linear_->forward(features);
}

}  // namespace astroclip::nn
