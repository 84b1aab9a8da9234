#include "nn/linear.hpp"

#include <ATen/ATen.h>
#include <ATen/autocast_mode.h>
#include <torch/csrc/autograd/custom_function.h>

#include <optional>

#include "nn/cpu_linear.hpp"

namespace astroclip::nn {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

std::optional<at::Tensor> if_defined(const at::Tensor& x)
{
    return x.defined() ? std::optional(x) : std::nullopt;
}

bool is_cast() { return at::autocast::is_autocast_enabled(at::kCPU); }
bool is_cast_to_bfloat16()
{
    return is_cast() && at::autocast::get_autocast_dtype(at::kCPU) == at::kBFloat16;
}

// x in the type that its product is computed in.
at::Tensor cast(const at::Tensor& x)
{
    return is_cast() ? x.to(at::autocast::get_autocast_dtype(at::kCPU)) : x;
}

// The CPU's kernels and their gradients. x [M, K] contiguous, residual [M, N] float32, contiguous.
class CpuLinearFunction : public torch::autograd::Function<CpuLinearFunction> {
public:
    struct Options {
        bool gelu = false, keep = false;  // keep what the gradient of the GELU needs
    };

    static at::Tensor forward(AutogradContext* context, const at::Tensor& x, const at::Tensor& weight,
                              const at::Tensor& bias, const std::optional<at::Tensor>& scale,
                              const std::optional<at::Tensor>& residual, const Options& options)
    {
        const CpuLinear layer{weight, bias, scale.value_or(at::Tensor())};
        Activation result;
        if (options.gelu) {
            result = cpu_linear_gelu(x, layer, options.keep);
        } else {
            result.after = cpu_linear(x, layer, residual.value_or(at::Tensor()));
        }
        context->save_for_backward({x, weight, bias, layer.scale, result.before});
        context->saved_data["of x"] = x.requires_grad();
        context->saved_data["of parameters"] =
            weight.requires_grad() || bias.requires_grad() || (scale.has_value() && scale->requires_grad());
        context->saved_data["residual"] = residual.has_value();
        return result.after;
    }

    static variable_list backward(AutogradContext* context, const variable_list& gradients)
    {
        TORCH_CHECK(!at::GradMode::is_enabled(), "linear layers on the CPU have no second derivatives");
        const auto saved = context->get_saved_variables();
        const auto& x = saved[0];
        const CpuLinear layer{saved[1], saved[2], saved[3]};
        auto dy = gradients[0].to(x.scalar_type()).contiguous();
        if (saved[4].defined()) dy = cpu_gelu_gradient(saved[4], dy);
        LinearGradients of;
        at::Tensor of_x;
        if (context->saved_data["of parameters"].toBool()) of = cpu_linear_gradients(x, dy, layer);
        if (context->saved_data["of x"].toBool()) of_x = cpu_linear_input_gradient(dy, layer);
        const bool residual = context->saved_data["residual"].toBool();
        return {of_x, of.weight, of.bias, of.scale, residual ? gradients[0] : at::Tensor(), at::Tensor()};
    }
};

bool is_float_on_cpu(const at::Tensor& x) { return x.is_cpu() && x.scalar_type() == at::kFloat; }
bool is_row(const at::Tensor& x, std::int64_t n)
{
    return x.defined() && is_float_on_cpu(x) && x.dim() == 1 && x.size(0) == n && x.is_contiguous();
}

// By the CPU's kernels; undefined where they do not fit, or nothing does: LibTorch's says what is wrong.
at::Tensor fast(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                const at::Tensor& scale, const at::Tensor& residual, bool gelu)
{
    if (!x.is_cpu() || x.dim() < 2 || weight.dim() != 2 || x.size(-1) != weight.size(1)) return {};
    auto shape = x.sizes().vec();
    shape.back() = weight.size(0);
    if (!is_row(bias, shape.back()) || (scale.defined() && !is_row(scale, shape.back()))) return {};
    if (residual.defined() && !(is_float_on_cpu(residual) && residual.sizes() == at::IntArrayRef(shape))) {
        return {};
    }
    if (!has_cpu_linear(x, weight)) return {};
    const auto rows = cast(x);
    if (rows.scalar_type() != at::kFloat && !is_cast_to_bfloat16()) return {};
    const bool keep =
        at::GradMode::is_enabled() && (x.requires_grad() || weight.requires_grad() || bias.requires_grad());
    const auto flat = [](const at::Tensor& of) { return of.reshape({-1, of.size(-1)}).contiguous(); };
    return CpuLinearFunction::apply(flat(rows), weight, bias, if_defined(scale),
                                    residual.defined() ? std::optional(flat(residual)) : std::nullopt,
                                    CpuLinearFunction::Options{gelu, keep})
        .view(shape);
}

}  // namespace

at::Tensor linear(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias)
{
    return linear_branch(x, weight, bias, {}, {});
}

at::Tensor linear_gelu(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias)
{
    const auto found = fast(x, weight, bias, {}, {}, true);
    return found.defined() ? found : at::gelu(at::linear(x, weight, bias));
}

at::Tensor linear_branch(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                         const at::Tensor& scale, const at::Tensor& residual)
{
    const auto found = fast(x, weight, bias, scale, residual, false);
    if (found.defined()) return found;
    auto y = at::linear(x, weight, bias);
    if (scale.defined()) y = y * scale;
    return residual.defined() ? residual + y : y;
}

}  // namespace astroclip::nn
