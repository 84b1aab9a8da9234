#pragma once

#include <vector>

#include "config/options.hpp"
#include "nn/transformer.hpp"

namespace astroclip::nn {

struct SpecFormerConfig {
    int token_dim = 22;  // 2 columns of statistics + 20 fluxes, see data/spectrum_tokens.hpp
    int width = 768;
    int layers = 6;
    int heads = 6;
    int max_tokens = 800;  // rows of the position table
    bool causal = false;   // a token sees itself and those before it (as GPT-2), else all see all
    double dropout = 0;    // of the embedded tokens and of what each branch adds, while training
    // While training, the blocks' activations are computed twice instead of kept. Changes no result.
    bool recompute = false;
};
void bind(config::Section options, SpecFormerConfig& config);

// Transformer encoder over the tokens of a spectrum, with a linear head that predicts the tokens
// back. It is pretrained on masked tokens and then gives the keys and values of the spectrum
// head. Source: AstroCLIP's SpecFormer.
//
//   tokens  [B, N, token_dim] float32, standardised (no unit), N <= max_tokens
class SpecFormerImpl : public Layer {
public:
    explicit SpecFormerImpl(const SpecFormerConfig& config);

    // -> [B, N, width], after the final LayerNorm
    at::Tensor forward(const at::Tensor& tokens, const Dropout* dropout = nullptr) const;
    // -> [B, N, token_dim]
    at::Tensor reconstruct(const at::Tensor& tokens, const Dropout* dropout = nullptr) const;
    // That of some tokens at less cost: the last block computes them alone. -> [B, M, token_dim]
    //   rows  [B·M] int64, of the flattened tokens [B·N], M of each sample, sample after sample
    at::Tensor reconstruct_at(const at::Tensor& tokens, const at::Tensor& rows,
                              const Dropout* dropout = nullptr) const;
    // The head alone: [B, N, width] -> [B, N, token_dim].
    at::Tensor predict_tokens(const at::Tensor& embedding) const;

    const SpecFormerConfig& config() const { return config_; }

private:
    at::Tensor embed(const at::Tensor& tokens, const Dropout* dropout) const;
    // The first `count` blocks.
    at::Tensor run_blocks(at::Tensor x, std::size_t count, const Dropout* dropout) const;

    SpecFormerConfig config_;
    Linear embed_{nullptr}, head_{nullptr};
    at::Tensor position_;  // [max_tokens, width]
    std::vector<TransformerBlock> blocks_;
    LayerNorm norm_{nullptr};
};
TORCH_MODULE(SpecFormer);

}  // namespace astroclip::nn
