#include "nn/layers.hpp"

#include <ATen/ATen.h>

#include <cmath>

#include "core/error.hpp"
#include "core/random.hpp"
#include "nn/linear.hpp"

namespace astroclip::nn {

namespace {

double draw(const Start& start, Random& random)
{
    switch (start.law) {
        case Start::Law::constant:
            return start.scale;
        case Start::Law::uniform:
            return random.uniform(-start.scale, start.scale);
        case Start::Law::normal:
            return start.scale * random.normal();
        case Start::Law::truncated_normal:
            // Redrawing what falls outside gives the truncated distribution itself; a clamp would pile
            // up at the cut.
            for (;;) {
                const double value = start.scale * random.normal();
                if (std::abs(value) <= start.cut) return value;
            }
    }
    throw InternalError("unknown law of first values");
}

}  // namespace

at::Tensor Layer::add_parameter(const std::string& name, at::IntArrayRef shape, Start start)
{
    starts_.emplace_back(name, start);
    return register_parameter(name, at::zeros(shape, at::kFloat));
}

void initialise(torch::nn::Module& module, std::uint64_t seed, std::string_view prefix)
{
    const at::NoGradGuard no_grad;
    if (const auto* layer = dynamic_cast<const Layer*>(&module)) {
        const auto parameters = module.named_parameters(false);
        for (const auto& [name, start] : layer->starts()) {
            at::Tensor parameter = parameters[name];
            auto values = at::empty(parameter.sizes(), at::kFloat);
            Random random(seed, "init:" + std::string(prefix) + name);
            float* out = values.data_ptr<float>();
            for (std::int64_t i = 0; i < values.numel(); ++i) {
                out[i] = static_cast<float>(draw(start, random));
            }
            parameter.copy_(values);
        }
    }
    for (const auto& child : module.named_children()) {
        initialise(*child.value(), seed, std::string(prefix) + child.key() + ".");
    }
}

void convert(torch::nn::Module& module, at::Device device, at::ScalarType type)
{
    for (auto& parameter : module.parameters()) {
        parameter.set_data(parameter.to(device, type));
    }
    for (auto& buffer : module.buffers()) {
        buffer.set_data(buffer.to(device, buffer.is_floating_point() ? type : buffer.scalar_type()));
    }
}

LinearImpl::LinearImpl(std::int64_t in, std::int64_t out, Start weight_start, Start bias_start)
    : weight(add_parameter("weight", {out, in}, weight_start)), bias(add_parameter("bias", {out}, bias_start))
{
}

at::Tensor LinearImpl::forward(const at::Tensor& x) const { return linear(x, weight, bias); }

at::Tensor LinearImpl::forward_gelu(const at::Tensor& x) const { return linear_gelu(x, weight, bias); }

at::Tensor LinearImpl::forward_branch(const at::Tensor& x, const at::Tensor& scale,
                                      const at::Tensor& residual) const
{
    return linear_branch(x, weight, bias, scale, residual);
}

at::Tensor LinearImpl::forward_part(const at::Tensor& x, std::int64_t first, std::int64_t count) const
{
    return linear(x, weight.narrow(0, first, count), bias.narrow(0, first, count));
}

Start framework_default(std::int64_t fan_in)
{
    return Start::uniform(1 / std::sqrt(static_cast<double>(fan_in)));
}

LayerNormImpl::LayerNormImpl(std::int64_t width, double eps)
    : weight(add_parameter("weight", {width}, Start::constant(1))),
      bias(add_parameter("bias", {width}, Start::constant(0))),
      eps_(eps)
{
}

at::Tensor LayerNormImpl::forward(const at::Tensor& x) const
{
    return at::layer_norm(x, {weight.size(0)}, weight, bias, eps_);
}

MlpImpl::MlpImpl(std::int64_t width, std::int64_t hidden, const Names& names, const Starts& starts)
{
    expand_ = register_module(names.expand, Linear(width, hidden, starts.expand_weight, starts.expand_bias));
    contract_ =
        register_module(names.contract, Linear(hidden, width, starts.contract_weight, starts.contract_bias));
}

at::Tensor MlpImpl::expand(const at::Tensor& x) const { return expand_->forward_gelu(x); }

at::Tensor MlpImpl::contract(const at::Tensor& hidden) const { return contract_->forward(hidden); }

at::Tensor MlpImpl::forward_branch(const at::Tensor& x, const at::Tensor& scale,
                                   const at::Tensor& residual) const
{
    return contract_->forward_branch(expand(x), scale, residual);
}

at::Tensor Dropout::apply(const at::Tensor& x, double rate, std::string_view layer) const
{
    if (rate == 0) return x;
    if (x.size(0) != static_cast<std::int64_t>(objects_.size())) {
        throw InternalError("dropout of a batch with another number of samples than it was drawn for");
    }
    const auto threshold = static_cast<std::uint64_t>(rate * 0x1p32);
    const float kept = static_cast<float>(1 / (1 - rate));
    auto factor = at::empty(x.sizes(), at::kFloat);
    float* out = factor.data_ptr<float>();
    const auto per_object = x.numel() / std::max<std::int64_t>(x.size(0), 1);
    for (const auto object : objects_) {
        Random random(seed_, "dropout:" + std::string(layer), step_, static_cast<std::uint64_t>(object));
        for (std::int64_t i = 0; i < per_object; ++i) {
            *out++ = random.bits() < threshold ? 0 : kept;
        }
    }
    return x * factor.to(x.options());
}

}  // namespace astroclip::nn
