#include "nn/attention.hpp"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>

#include <optional>

#include "nn/cpu_attention.hpp"

namespace astroclip::nn {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

struct Heads {
    at::Tensor q, k, v;  // [B, heads, M or N, width/heads]
};

// The `index`-th of `count` groups of columns of x [B, N, count·width], by head.
at::Tensor by_head(const at::Tensor& x, std::int64_t heads, std::int64_t count, std::int64_t index)
{
    const auto width = x.size(2) / count;
    return x.narrow(2, index * width, width).unflatten(2, {heads, width / heads}).transpose(1, 2);
}

// Without kv the first tensor holds q, k and v; with it q alone.
Heads heads_of(const at::Tensor& first, const at::Tensor& kv, std::int64_t heads)
{
    if (kv.defined()) {
        return {by_head(first, heads, 1, 0), by_head(kv, heads, 2, 0), by_head(kv, heads, 2, 1)};
    }
    return {by_head(first, heads, 3, 0), by_head(first, heads, 3, 1), by_head(first, heads, 3, 2)};
}

// The CPU kernel and its gradient. The gradients are written where their inputs' columns are.
class CpuAttention : public torch::autograd::Function<CpuAttention> {
public:
    static at::Tensor forward(AutogradContext* context, const at::Tensor& first,
                              const std::optional<at::Tensor>& other, std::int64_t heads)
    {
        const auto kv = other.value_or(at::Tensor());
        const auto parts = heads_of(first, kv, heads);
        const auto result = cpu_attention(parts.q, parts.k, parts.v);
        context->save_for_backward({first, kv, result.mixed, result.lse});
        context->saved_data["heads"] = heads;
        return result.mixed;
    }

    static variable_list backward(AutogradContext* context, const variable_list& gradients)
    {
        const auto saved = context->get_saved_variables();
        const auto heads = context->saved_data["heads"].toInt();
        const auto of_first = at::empty_like(saved[0]);
        const auto of_kv = saved[1].defined() ? at::empty_like(saved[1]) : at::Tensor();
        const auto parts = heads_of(saved[0], saved[1], heads), to = heads_of(of_first, of_kv, heads);
        cpu_attention_backward(parts.q, parts.k, parts.v, {saved[2], saved[3]}, gradients[0].contiguous(),
                               to.q, to.k, to.v);
        return {of_first, of_kv, at::Tensor()};
    }
};

at::Tensor mixed(const at::Tensor& first, const at::Tensor& kv, std::int64_t heads, bool causal)
{
    const auto parts = heads_of(first, kv, heads);
    if (!causal && has_cpu_attention(parts.q)) {
        return CpuAttention::apply(first, kv.defined() ? std::optional(kv) : std::nullopt, heads);
    }
    const auto out = at::scaled_dot_product_attention(parts.q, parts.k, parts.v, {}, 0.0, causal);
    return out.transpose(1, 2).flatten(2);
}

}  // namespace

at::Tensor self_attention(const at::Tensor& qkv, std::int64_t heads, bool causal)
{
    return mixed(qkv, {}, heads, causal);
}

at::Tensor attention(const at::Tensor& q, const at::Tensor& kv, std::int64_t heads)
{
    return mixed(q, kv, heads, false);
}

}  // namespace astroclip::nn
