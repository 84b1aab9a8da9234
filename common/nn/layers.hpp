#pragma once

#include <ATen/core/Tensor.h>
#include <torch/nn/module.h>

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

// The small parts that the networks are made of. They differ from LibTorch's own in one thing: a parameter
// carries the law of its first values instead of drawing them from a global generator, so that building a
// network costs nothing when its weights are loaded, and its first values depend on the seed and the
// parameter's name alone.
namespace astroclip::nn {

// The law of a parameter's first values.
struct Start {
    enum class Law { constant, uniform, normal, truncated_normal };
    Law law = Law::constant;
    double scale = 0;  // the constant; the limit of U(-scale, scale); the standard deviation
    double cut = 0;    // truncated_normal: values beyond ±cut do not occur

    static Start constant(double value) { return {Law::constant, value, 0}; }
    static Start uniform(double limit) { return {Law::uniform, limit, 0}; }
    static Start normal(double std) { return {Law::normal, std, 0}; }
    static Start truncated_normal(double std, double cut) { return {Law::truncated_normal, std, cut}; }
};

// A module whose parameters know how they start. Until initialise() they are 0, float32, on the CPU.
class Layer : public torch::nn::Module {
public:
    at::Tensor add_parameter(const std::string& name, at::IntArrayRef shape, Start start);
    const std::vector<std::pair<std::string, Start>>& starts() const { return starts_; }

private:
    std::vector<std::pair<std::string, Start>> starts_;
};

// Draws all parameters of `module`, each from a stream of its own: (seed, prefix + name of the parameter).
// The values do not depend on the order of construction, on threads, or on what else is drawn. Modules that
// share a seed and have parameters of the same name need different prefixes.
void initialise(torch::nn::Module& module, std::uint64_t seed, std::string_view prefix = "");

// Moves a network's parameters and buffers; counters stay integers (Module::to would make them
// floating-point).
void convert(torch::nn::Module& module, at::Device device, at::ScalarType type);

// y = x W^T + b, over the last dimension. x [..., in] -> [..., out]
class LinearImpl : public Layer {
public:
    LinearImpl(std::int64_t in, std::int64_t out, Start weight, Start bias);
    at::Tensor forward(const at::Tensor& x) const;
    at::Tensor forward_gelu(const at::Tensor& x) const;  // GELU (erf) of y
    // residual + scale ∘ y, of either what is defined (linear.hpp).
    at::Tensor forward_branch(const at::Tensor& x, const at::Tensor& scale, const at::Tensor& residual) const;
    // Columns [first, first + count) of y alone.
    at::Tensor forward_part(const at::Tensor& x, std::int64_t first, std::int64_t count) const;

    at::Tensor weight;  // [out, in]
    at::Tensor bias;    // [out]
};
TORCH_MODULE(Linear);

// The start that LibTorch and PyTorch give a Linear (weight and bias): U(±1/sqrt(fan_in)).
Start framework_default(std::int64_t fan_in);

class LayerNormImpl : public Layer {
public:
    LayerNormImpl(std::int64_t width, double eps);
    at::Tensor forward(const at::Tensor& x) const;

    at::Tensor weight;  // [width]
    at::Tensor bias;    // [width]

private:
    double eps_;
};
TORCH_MODULE(LayerNorm);

// Linear, GELU (erf), Linear. The names of the two layers are the published networks'.
class MlpImpl : public torch::nn::Module {
public:
    struct Names {
        const char* expand = "encoder";
        const char* contract = "decoder";
    };
    struct Starts {
        Start expand_weight, expand_bias, contract_weight, contract_bias;
    };
    MlpImpl(std::int64_t width, std::int64_t hidden, const Names& names, const Starts& starts);
    at::Tensor forward(const at::Tensor& x) const { return contract(expand(x)); }
    at::Tensor expand(const at::Tensor& x) const;  // with the GELU: [..., width] -> [..., hidden]
    at::Tensor contract(const at::Tensor& hidden) const;
    // residual + scale ∘ MLP(x), of either what is defined.
    at::Tensor forward_branch(const at::Tensor& x, const at::Tensor& scale, const at::Tensor& residual) const;

private:
    Linear expand_{nullptr}, contract_{nullptr};
};
TORCH_MODULE(Mlp);

// The dropout of one training step: which elements are kept is a function of (seed, step, object, layer)
// alone, so it does not depend on ranks or on the batch. Networks apply dropout exactly when they are handed
// one of these.
class Dropout {
public:
    // objects: the id of each sample of the batch, in order.
    Dropout(std::uint64_t seed, std::uint32_t step, std::vector<std::int64_t> objects)
        : seed_(seed), step_(step), objects_(std::move(objects))
    {
    }

    // Of `count` of the objects, from number `first` on: what the whole would do to these rows.
    Dropout of(std::int64_t first, std::int64_t count) const
    {
        return {seed_, step_, {objects_.begin() + first, objects_.begin() + first + count}};
    }

    // x [B, ...] with each element set to 0 with probability `rate`, else divided by 1 - rate.
    // `layer` names the stream.
    at::Tensor apply(const at::Tensor& x, double rate, std::string_view layer) const;

private:
    std::uint64_t seed_;
    std::uint32_t step_;
    std::vector<std::int64_t> objects_;
};

}  // namespace astroclip::nn
