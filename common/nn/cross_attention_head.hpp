#pragma once

#include "config/options.hpp"
#include "nn/layers.hpp"

namespace astroclip::nn {

struct HeadConfig {
    int embed_dim = 1024;  // E, width of the shared space
    int attention_heads = 4;
    double dropout = 0.1;
    double hidden_dropout = 0;  // within the MLP, after its GELU (the workshop's head has 0.1 there too)
    bool image_head_residual = false;  // the spectrum head always has it
};
void bind(config::Section options, HeadConfig& config);

// One learnable query that looks at all tokens of an encoder: multi-head attention, dropout, LayerNorm; no
// residual to the query. Parameter names are those of the published checkpoint: packed in_proj_weight when D
// = E, else separate q, k and v matrices.
//
//   tokens  [B, N, D] -> [B, E]
class CrossAttentionImpl : public Layer {
public:
    CrossAttentionImpl(std::int64_t token_width, const HeadConfig& config);
    at::Tensor forward(const at::Tensor& tokens, const Dropout* dropout = nullptr) const;

private:
    class Projections;
    std::int64_t heads_;
    double dropout_;
    at::Tensor query_;  // [1, 1, E]
    std::shared_ptr<Projections> attention_;
    LayerNorm norm_{nullptr};
};
TORCH_MODULE(CrossAttention);

// Tokens of a frozen encoder -> embedding z [B, E], not normalised: x = CrossAttention(tokens); z = MLP(x),
// or x + MLP(x) with `residual`. Its parameters are cross_attention.* and mlp.*.
class AlignmentHeadImpl : public torch::nn::Module {
public:
    AlignmentHeadImpl(std::int64_t token_width, const HeadConfig& config, bool residual);

    at::Tensor forward(const at::Tensor& tokens,
                       const Dropout* dropout = nullptr) const;  // [B, N, D] -> [B, E]
    CrossAttention cross_attention{nullptr};
    Mlp mlp{nullptr};

private:
    double dropout_, hidden_dropout_;
    bool residual_;
};
TORCH_MODULE(AlignmentHead);

}  // namespace astroclip::nn
