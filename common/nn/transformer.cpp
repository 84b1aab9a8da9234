#include "nn/transformer.hpp"

#include <ATen/ATen.h>

#include <cmath>

#include "core/error.hpp"
#include "nn/attention.hpp"

namespace astroclip::nn {

namespace {

// x + scale·branch(x) on the subset's rows, x elsewhere. branch(x, residual) adds to the residual, if any.
template <typename Branch>
at::Tensor add_branch(const at::Tensor& x, const Subset& subset, Branch&& branch)
{
    if (!subset.rows.defined()) return branch(x, x);
    const auto change = branch(x.index_select(0, subset.rows), at::Tensor());
    return x.index_add(0, subset.rows, change.to(x.scalar_type()), subset.scale);
}

}  // namespace

at::Tensor token_rows(const at::Tensor& x, const at::Tensor& rows)
{
    return x.flatten(0, 1).index_select(0, rows).view({x.size(0), -1, x.size(2)});
}

TransformerBlockImpl::TransformerBlockImpl(const BlockConfig& config)
    : heads_(config.heads), causal_(config.causal), dropout_(config.dropout)
{
    const auto width = config.width;
    if (heads_ < 1 || width % heads_ != 0) {
        throw ConfigError("a width of " + std::to_string(width) + " cannot be divided among " +
                          std::to_string(heads_) + " attention heads");
    }
    const auto zero = Start::constant(0);
    const auto& names = config.names;
    const auto layer_scale = [&](const char* name) {
        const auto part = register_module(name, std::make_shared<Layer>());
        return part->add_parameter("gamma", {width}, Start::constant(*config.layer_scale));
    };

    norm1_ = register_module(names.norm1, LayerNorm(width, config.norm_eps));
    const auto attention = register_module(names.attention, std::make_shared<torch::nn::Module>());
    qkv_ = attention->register_module(names.qkv, Linear(width, 3 * width, config.width_weights, zero));
    projection_ =
        attention->register_module(names.projection, Linear(width, width, config.width_weights, zero));
    if (config.layer_scale) scale1_ = layer_scale(names.scale1);
    norm2_ = register_module(names.norm2, LayerNorm(width, config.norm_eps));
    const MlpImpl::Starts starts{config.width_weights, zero, config.hidden_weights, zero};
    mlp_ = register_module(names.mlp, Mlp(width, 4 * width, names.mlp_layers, starts));
    if (config.layer_scale) scale2_ = layer_scale(names.scale2);
}

at::Tensor TransformerBlockImpl::attention_branch(const at::Tensor& x, const at::Tensor& residual) const
{
    const auto mixed = self_attention(qkv_->forward(norm1_->forward(x)), heads_, causal_);
    return projection_->forward_branch(mixed, scale1_, residual);
}

at::Tensor TransformerBlockImpl::attention_weights(const at::Tensor& x, std::int64_t token) const
{
    const auto width = x.size(2);
    const auto normed = norm1_->forward(x);
    const auto by_head = [&](const at::Tensor& rows) {
        return rows.unflatten(2, {heads_, width / heads_}).transpose(1, 2);  // [B, heads, rows, d]
    };
    const auto query = by_head(qkv_->forward_part(normed.narrow(1, token, 1), 0, width));
    const auto keys = by_head(qkv_->forward_part(normed, width, width));
    const auto scale = 1 / std::sqrt(static_cast<double>(width / heads_));
    return (scale * query.matmul(keys.transpose(2, 3))).softmax(-1).squeeze(2);
}

at::Tensor TransformerBlockImpl::attention_branch_at(const at::Tensor& x, const at::Tensor& rows) const
{
    const auto width = x.size(2);
    const auto normed = norm1_->forward(x);
    const auto mixed = causal_ ? token_rows(self_attention(qkv_->forward(normed), heads_, true), rows)
                               : attention(qkv_->forward_part(token_rows(normed, rows), 0, width),
                                           qkv_->forward_part(normed, width, 2 * width), heads_);
    return projection_->forward_branch(mixed, scale1_, {});
}

at::Tensor TransformerBlockImpl::mlp_branch(const at::Tensor& x, const at::Tensor& residual) const
{
    return mlp_->forward_branch(norm2_->forward(x), scale2_, residual);
}

at::Tensor TransformerBlockImpl::forward(const at::Tensor& x, const Dropout* dropout,
                                         const std::string& layer) const
{
    const auto y = x + dropped(attention_branch(x), dropout, layer + ".attention");
    return y + dropped(mlp_branch(y), dropout, layer + ".mlp");
}

at::Tensor TransformerBlockImpl::forward_at(const at::Tensor& x, const at::Tensor& rows,
                                            const Dropout* dropout, const std::string& layer) const
{
    const auto y = token_rows(x, rows) + dropped(attention_branch_at(x, rows), dropout, layer + ".attention");
    return y + dropped(mlp_branch(y), dropout, layer + ".mlp");
}

at::Tensor TransformerBlockImpl::dropped(const at::Tensor& branch, const Dropout* dropout,
                                         const std::string& stream) const
{
    return dropout == nullptr ? branch : dropout->apply(branch, dropout_, stream);
}

at::Tensor TransformerBlockImpl::forward(const at::Tensor& x, const Subset& attention,
                                         const Subset& mlp) const
{
    const auto y = add_branch(x, attention, [this](const at::Tensor& rows, const at::Tensor& residual) {
        return attention_branch(rows, residual);
    });
    return add_branch(y, mlp, [this](const at::Tensor& rows, const at::Tensor& residual) {
        return mlp_branch(rows, residual);
    });
}

}  // namespace astroclip::nn
