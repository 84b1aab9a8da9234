#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "nn/layers.hpp"

namespace astroclip::nn {

// Names under which a published network stores the parts of a block.
struct BlockNames {
    const char *norm1, *attention, *qkv, *projection, *scale1, *norm2, *mlp, *scale2;
    MlpImpl::Names mlp_layers;
};
inline constexpr BlockNames specformer_names{"layernorm1", "attention", "attention",
                                             "projection", "",          "layernorm2",
                                             "mlp",        "",          {"encoder", "decoder"}};
inline constexpr BlockNames dinov2_names{"norm1", "attn", "qkv", "proj",        "ls1",
                                         "norm2", "mlp",  "ls2", {"fc1", "fc2"}};

struct BlockConfig {
    std::int64_t width = 0;
    std::int64_t heads = 0;
    double norm_eps = 1e-5;
    std::optional<double> layer_scale{};  // first value of the LayerScale vectors; none: no LayerScale
    Start width_weights{};                // qkv, projection and the MLP's first layer: width inputs each
    Start hidden_weights{};               // the MLP's second layer: 4·width inputs
    BlockNames names{};
    bool causal = false;  // a token sees itself and those before it
    double dropout = 0;   // of what the attention and the MLP add, where forward() is handed a Dropout
};

// The rows of the batch that a residual branch acts on, and the factor of its output there (stochastic depth
// by subsets of samples, DINOv2). The other rows pass unchanged.
struct Subset {
    at::Tensor rows;  // int64 [kept]; undefined: all rows
    double scale = 1;
};

// Pre-norm transformer block: x + s1·Attention(LN x), then x + s2·MLP(LN x). x [B, N, width] -> same shape.
class TransformerBlockImpl : public torch::nn::Module {
public:
    explicit TransformerBlockImpl(const BlockConfig& config);
    at::Tensor forward(const at::Tensor& x) const { return forward(x, Subset{}, Subset{}); }
    // With dropout of both branches' outputs; `layer` names its streams.
    at::Tensor forward(const at::Tensor& x, const Dropout* dropout, const std::string& layer) const;
    // What that gives at some of the tokens, without computing the others.
    //   rows  [B·M] int64, of the flattened tokens [B·N], M of each sample, sample after sample -> [B, M,
    //   width]
    at::Tensor forward_at(const at::Tensor& x, const at::Tensor& rows, const Dropout* dropout,
                          const std::string& layer) const;
    at::Tensor forward(const at::Tensor& x, const Subset& attention, const Subset& mlp) const;
    // How much token number `token` looks at each of the tokens, by head: softmax of its scaled products with
    // their keys. x [B, N, width] -> [B, heads, N].
    at::Tensor attention_weights(const at::Tensor& x, std::int64_t token) const;

private:
    // residual + s·branch(x), or the latter alone.
    at::Tensor attention_branch(const at::Tensor& x, const at::Tensor& residual = {}) const;
    at::Tensor attention_branch_at(const at::Tensor& x, const at::Tensor& rows) const;
    at::Tensor dropped(const at::Tensor& branch, const Dropout* dropout, const std::string& stream) const;
    at::Tensor mlp_branch(const at::Tensor& x, const at::Tensor& residual = {}) const;

    std::int64_t heads_;
    bool causal_;
    double dropout_;
    LayerNorm norm1_{nullptr}, norm2_{nullptr};
    Linear qkv_{nullptr}, projection_{nullptr};
    Mlp mlp_{nullptr};
    at::Tensor scale1_, scale2_;  // [width], or undefined
};
TORCH_MODULE(TransformerBlock);

// Rows of the flattened tokens of x [B, N, W], the same number of each sample -> [B, M, W].
at::Tensor token_rows(const at::Tensor& x, const at::Tensor& rows);

}  // namespace astroclip::nn
