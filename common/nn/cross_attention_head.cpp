#include "nn/cross_attention_head.hpp"

#include <ATen/ATen.h>

#include <cmath>

#include "core/error.hpp"

namespace astroclip::nn {

namespace {

Start xavier(std::int64_t fan_in, std::int64_t fan_out)
{
    return Start::uniform(std::sqrt(6.0 / static_cast<double>(fan_in + fan_out)));
}

at::Tensor softmax(const at::Tensor& scores)
{
    const auto type = scores.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
    return at::softmax(scores, -1, type);
}

}  // namespace

void bind(config::Section options, HeadConfig& config)
{
    options
        .option("embed-dim", config.embed_dim, "width of the space that images and spectra share",
                config::at_least(1))
        .option("attention-heads", config.attention_heads, "attention heads of the two alignment heads",
                config::at_least(1))
        .option("dropout", config.dropout, "dropout of the alignment heads in training",
                config::between(0, 0.99))
        .option("hidden-dropout", config.hidden_dropout,
                "dropout within their MLP in training; 0 as in MNRAS, the workshop's head has 0.1",
                config::between(0, 0.99))
        .option("image-head-residual", config.image_head_residual, "z = x + MLP(x) for images too");
}

// The matrices of the attention: query [E, E], key and value [E, D], packed [3E, E] when D = E.
class CrossAttentionImpl::Projections : public Layer {
public:
    Projections(std::int64_t token_width, std::int64_t width)
    {
        if (token_width == width) {
            packed_ = add_parameter("in_proj_weight", {3 * width, width}, xavier(width, 3 * width));
        } else {
            query_ = add_parameter("q_proj_weight", {width, width}, xavier(width, width));
            key_ = add_parameter("k_proj_weight", {width, token_width}, xavier(token_width, width));
            value_ = add_parameter("v_proj_weight", {width, token_width}, xavier(token_width, width));
        }
        bias_ = add_parameter("in_proj_bias", {3 * width}, Start::constant(0));
        out_ =
            register_module("out_proj", Linear(width, width, framework_default(width), Start::constant(0)));
    }

    // query [1, 1, E], tokens [B, N, D] -> [B, E]
    at::Tensor attend(const at::Tensor& query, const at::Tensor& tokens, std::int64_t heads) const
    {
        const auto width = query.size(2), head = width / heads;
        const auto q = at::linear(query, matrix(query_, 0), bias_.narrow(0, 0, width)).view({heads, 1, head});
        const auto key = matrix(key_, 1).view({heads, head, -1});
        const auto value = matrix(value_, 2).view({heads, head, -1});

        // All samples share the query, so key and value matrices are applied to the query and to the
        // mean token instead of to all N tokens: q·(K t + b) = (K^T q)·t + const, and the constant
        // cancels in the softmax.
        const auto probe = (at::bmm(q, key) / std::sqrt(double(head))).squeeze(1);    // [heads, D]
        const auto weights = softmax(at::matmul(tokens, probe.t()).transpose(1, 2));  // [B, heads, N]
        const auto mean = at::matmul(weights.to(tokens.scalar_type()), tokens);       // [B, heads, D]
        const auto mixed = at::bmm(mean.transpose(0, 1), value.transpose(1, 2));      // [heads, B, head]
        const auto all_heads = mixed.transpose(0, 1).reshape({tokens.size(0), width});
        return out_->forward(all_heads + bias_.narrow(0, 2 * width, width));
    }

private:
    at::Tensor matrix(const at::Tensor& separate, std::int64_t part) const
    {
        if (separate.defined()) return separate;
        const auto width = packed_.size(1);
        return packed_.narrow(0, part * width, width);
    }

    at::Tensor packed_, query_, key_, value_, bias_;
    Linear out_{nullptr};
};

CrossAttentionImpl::CrossAttentionImpl(std::int64_t token_width, const HeadConfig& config)
    : heads_(config.attention_heads), dropout_(config.dropout)
{
    const std::int64_t width = config.embed_dim;
    if (heads_ < 1 || width % heads_ != 0) {
        throw ConfigError("embed-dim = " + std::to_string(width) +
                          " is not a multiple of attention-heads = " + std::to_string(heads_));
    }
    query_ = add_parameter("query", {1, 1, width}, Start::normal(1));
    attention_ = register_module("multihead_attn", std::make_shared<Projections>(token_width, width));
    norm_ = register_module("layernorm", LayerNorm(width, 1e-5));
}

at::Tensor CrossAttentionImpl::forward(const at::Tensor& tokens, const Dropout* dropout) const
{
    auto x = attention_->attend(query_, tokens, heads_);
    if (dropout != nullptr) x = dropout->apply(x, dropout_, "cross_attention");
    return norm_->forward(x);
}

AlignmentHeadImpl::AlignmentHeadImpl(std::int64_t token_width, const HeadConfig& config, bool residual)
    : dropout_(config.dropout), hidden_dropout_(config.hidden_dropout), residual_(residual)
{
    const std::int64_t width = config.embed_dim;
    const auto in = framework_default(width), hidden = framework_default(4 * width);
    cross_attention = register_module("cross_attention", CrossAttention(token_width, config));
    mlp = register_module("mlp",
                          Mlp(width, 4 * width, MlpImpl::Names{}, MlpImpl::Starts{in, in, hidden, hidden}));
}

at::Tensor AlignmentHeadImpl::forward(const at::Tensor& tokens, const Dropout* dropout) const
{
    const auto x = cross_attention->forward(tokens, dropout);
    auto hidden = mlp->expand(x);
    if (dropout != nullptr) hidden = dropout->apply(hidden, hidden_dropout_, "hidden");
    auto z = mlp->contract(hidden);
    if (dropout != nullptr) z = dropout->apply(z, dropout_, "mlp");
    return residual_ ? x + z : z;
}

}  // namespace astroclip::nn
