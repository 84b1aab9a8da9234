#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "config/options.hpp"
#include "nn/transformer.hpp"

namespace astroclip::nn {

struct ViTConfig {
    int image_size = 144;  // pixels a side of the images that the position table is made for
    int patch_size = 12;
    int width = 1024;
    int depth = 24;
    int heads = 16;
    int block_chunks = 4;         // the parameters are named blocks.CHUNK.BLOCK; 0: blocks.BLOCK
    double drop_path_rate = 0.3;  // stochastic depth, see draw_stochastic_depth
    double layerscale = 1e-5;     // first value of the LayerScale vectors
};
void bind(config::Section options, ViTConfig& config);

// For each block, attention before MLP, which rows of the batch get the branch: 2·depth
// entries. Empty: all rows.
using StochasticDepth = std::vector<Subset>;

// The rows of a batch that share stochastic depth: `views` views of `groups` groups of `group_images` images,
// row view·(groups·group_images) + image; the groups are numbered from `first_group` on in the global batch.
struct DepthGroups {
    std::int64_t views = 1;
    std::int64_t groups = 1;
    std::int64_t group_images = 72;
    std::int64_t first_group = 0;
};

// Draws the subsets for such a batch: of the n = views·group_images rows of a group, a random
// max(int(n·(1 - rate)), 1) get the branch, times n/kept (DINOv2). A function of (seed, purpose, step,
// number of the group) alone.
StochasticDepth draw_stochastic_depth(const ViTConfig& config, const DepthGroups& batch, std::uint64_t seed,
                                      std::string_view purpose, std::uint32_t step);

struct ImageTokens {
    at::Tensor cls;      // [B, width]
    at::Tensor patches;  // [B, N, width], row by row
};

// Vision transformer over patches of an image, as DINOv2 trains it (cls token, position table, LayerScale, no
// registers), with its parameter names.
//
//   images  [B, 3, H, W] float32, RGB in [0, 1]; H and W multiples of patch_size, N = H·W/patch_size²
//   mask    [B, N] bool, true: the mask token stands for the patch (its position stays); undefined: none
class VisionTransformerImpl : public Layer {
public:
    explicit VisionTransformerImpl(const ViTConfig& config);

    // With cls token and position table, after the final LayerNorm.
    ImageTokens forward_features(const at::Tensor& images, const at::Tensor& mask = {},
                                 const StochasticDepth& depth = {}) const;
    // What the alignment head reads: patches -> blocks -> final LayerNorm, WITHOUT cls
    // token and position table.
    at::Tensor tokens_without_position(const at::Tensor& images) const;  // -> [B, N, width]
    at::Tensor forward(const at::Tensor& images) const { return forward_features(images).cls; }
    // How much the cls token looks at each patch in the last block, by head. -> [B, heads, N]
    at::Tensor cls_attention(const at::Tensor& images) const;

    // The tokens that enter block 0: cls, then patches; positions added. -> [B, 1 + N, width]
    at::Tensor input_tokens(const at::Tensor& images, const at::Tensor& mask = {}) const;
    // The position table for a grid of rows × columns patches, cls first; resized bicubically
    // unless it is the table's own grid (coordinates scaled by (n + 0.1)/grid, as trained).
    // -> [1, 1 + rows·columns, width]
    at::Tensor position_table(std::int64_t rows, std::int64_t columns) const;

    const ViTConfig& config() const { return config_; }

private:
    at::Tensor embed_patches(const at::Tensor& images) const;
    at::Tensor run_blocks(at::Tensor x, const StochasticDepth& depth) const;

    ViTConfig config_;
    at::Tensor cls_token_;                  // [1, 1, width]
    at::Tensor pos_embed_;                  // [1, 1 + (image_size/patch_size)², width]
    at::Tensor mask_token_;                 // [1, width]
    at::Tensor patch_weight_, patch_bias_;  // [width, 3, patch, patch], [width]
    std::vector<TransformerBlock> blocks_;
    LayerNorm norm_{nullptr};
};
TORCH_MODULE(VisionTransformer);

}  // namespace astroclip::nn
