#include "nn/specformer.hpp"

#include <ATen/ATen.h>

#include <fmt/format.h>

#include <cmath>

#include "core/error.hpp"
#include "nn/recompute.hpp"

namespace astroclip::nn {

namespace {

Start within_3_std(double std) { return Start::truncated_normal(std, 3 * std); }

// Residual branches start smaller the more of them there are: std = 1/sqrt(2·fan_in·layers).
Start block_weights(double fan_in, int layers) { return within_3_std(1 / std::sqrt(2 * fan_in * layers)); }

// Of a block, in the streams of its dropout.
std::string layer_name(std::size_t block) { return "block" + std::to_string(block); }

}  // namespace

void bind(config::Section options, SpecFormerConfig& config)
{
    options
        .option("width", config.width, "width of the spectrum transformer, a multiple of heads",
                config::at_least(1))
        .option("layers", config.layers, "its transformer blocks", config::at_least(1))
        .option("heads", config.heads, "its attention heads", config::at_least(1))
        .option("max-tokens", config.max_tokens,
                "rows of its position table: the longest spectrum, in tokens", config::at_least(1))
        .option("causal", config.causal, "a token sees itself and those before it alone (as GPT-2)")
        .option("dropout", config.dropout,
                "of embedded tokens and of what attention and MLP add, in training", config::between(0, 0.99))
        .option(
            "recompute-activations", config.recompute,
            "compute the blocks' activations again in the backward pass instead of keeping them: less memory",
            config::runtime_only());
}

SpecFormerImpl::SpecFormerImpl(const SpecFormerConfig& config) : config_(config)
{
    const std::int64_t width = config.width, token_dim = config.token_dim;
    const auto embedding = within_3_std(1 / std::sqrt(double(width)));
    embed_ = register_module("data_embed", Linear(token_dim, width, embedding, framework_default(token_dim)));
    const auto table = register_module("position_embed", std::make_shared<Layer>());
    position_ = table->add_parameter("weight", {config.max_tokens, width}, embedding);

    const BlockConfig block{.width = width,
                            .heads = config.heads,
                            .width_weights = block_weights(width, config.layers),
                            .hidden_weights = block_weights(4.0 * width, config.layers),
                            .names = specformer_names,
                            .causal = config.causal,
                            .dropout = config.dropout};
    const auto blocks = register_module("blocks", std::make_shared<torch::nn::Module>());
    for (int i = 0; i < config.layers; ++i) {
        blocks_.push_back(blocks->register_module(std::to_string(i), TransformerBlock(block)));
    }
    norm_ = register_module("final_layernorm", LayerNorm(width, 1e-5));
    head_ = register_module("head", Linear(width, token_dim, embedding, Start::constant(0)));
}

at::Tensor SpecFormerImpl::embed(const at::Tensor& tokens, const Dropout* dropout) const
{
    const auto length = tokens.size(1);
    if (length > config_.max_tokens || tokens.size(2) != config_.token_dim) {
        throw DataError("spectrum tokens",
                        fmt::format("{} tokens of {} features, the model takes up to {} of {}", length,
                                    tokens.size(2), config_.max_tokens, config_.token_dim));
    }
    const auto x = embed_->forward(tokens) + position_.narrow(0, 0, length);
    return dropout == nullptr ? x : dropout->apply(x, config_.dropout, "tokens");
}

at::Tensor SpecFormerImpl::run_blocks(at::Tensor x, std::size_t count, const Dropout* dropout) const
{
    for (std::size_t i = 0; i < count; ++i) {
        const auto block = [&layer = *blocks_[i], dropout, name = layer_name(i)](const at::Tensor& tokens) {
            return layer.forward(tokens, dropout, name);
        };
        x = config_.recompute ? recomputed(block, x) : block(x);
    }
    return x;
}

at::Tensor SpecFormerImpl::forward(const at::Tensor& tokens, const Dropout* dropout) const
{
    return norm_->forward(run_blocks(embed(tokens, dropout), blocks_.size(), dropout));
}

at::Tensor SpecFormerImpl::reconstruct_at(const at::Tensor& tokens, const at::Tensor& rows,
                                          const Dropout* dropout) const
{
    const auto last = blocks_.size() - 1;
    const auto x = run_blocks(embed(tokens, dropout), last, dropout);
    const auto chosen = blocks_[last]->forward_at(x, rows, dropout, layer_name(last));
    return predict_tokens(norm_->forward(chosen));
}

at::Tensor SpecFormerImpl::predict_tokens(const at::Tensor& embedding) const
{
    return head_->forward(embedding);
}

at::Tensor SpecFormerImpl::reconstruct(const at::Tensor& tokens, const Dropout* dropout) const
{
    return predict_tokens(forward(tokens, dropout));
}

}  // namespace astroclip::nn
