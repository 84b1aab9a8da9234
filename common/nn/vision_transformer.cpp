#include "nn/vision_transformer.hpp"

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "core/error.hpp"
#include "core/random.hpp"

namespace astroclip::nn {

namespace {

const Start linear_weights = Start::truncated_normal(0.02, 2);  // cut at ±2, not at 2 standard deviations

}  // namespace

void bind(config::Section options, ViTConfig& config)
{
    options
        .option("image-size", config.image_size,
                "side of the images that the position table is made for (pixels)", config::at_least(1))
        .option("patch-size", config.patch_size, "side of a patch (pixels)", config::at_least(1))
        .option("width", config.width, "width of the image transformer, a multiple of heads",
                config::at_least(1))
        .option("depth", config.depth, "its transformer blocks", config::at_least(1))
        .option("heads", config.heads, "its attention heads", config::at_least(1))
        .option("block-chunks", config.block_chunks,
                "parameters are named blocks.CHUNK.BLOCK with that many chunks; 0: blocks.BLOCK",
                config::at_least(0))
        .option("drop-path-rate", config.drop_path_rate,
                "fraction of the samples that skip a residual branch in training", config::between(0, 0.99))
        .option("layerscale", config.layerscale, "first value of the LayerScale vectors",
                config::at_least(0));
}

StochasticDepth draw_stochastic_depth(const ViTConfig& config, const DepthGroups& batch, std::uint64_t seed,
                                      std::string_view purpose, std::uint32_t step)
{
    if (config.drop_path_rate == 0) return {};
    const auto images = batch.groups * batch.group_images, n = batch.views * batch.group_images;
    const auto kept = std::max<std::int64_t>(std::int64_t(double(n) * (1 - config.drop_path_rate)), 1);
    StochasticDepth depth(2 * config.depth);
    for (auto& subset : depth) {
        subset.rows = at::empty({batch.groups * kept}, at::kLong);
        subset.scale = double(n) / double(kept);
    }
    std::vector<std::int64_t> order(n);
    for (std::int64_t group = 0; group < batch.groups; ++group) {
        Random random(seed, purpose, step, std::uint64_t(batch.first_group + group));
        for (auto& subset : depth) {
            std::iota(order.begin(), order.end(), 0);
            auto* rows = subset.rows.data_ptr<std::int64_t>() + group * kept;
            for (std::int64_t i = 0; i < kept; ++i) {  // the first steps of a Fisher-Yates shuffle
                std::swap(order[i], order[i + std::int64_t(random.below(n - i))]);
                const auto view = order[i] / batch.group_images, image = order[i] % batch.group_images;
                rows[i] = view * images + group * batch.group_images + image;
            }
        }
    }
    return depth;
}

VisionTransformerImpl::VisionTransformerImpl(const ViTConfig& config) : config_(config)
{
    const std::int64_t width = config.width, patch = config.patch_size, grid = config.image_size / patch;
    if (grid < 1 || config.image_size % patch != 0) {
        throw ConfigError(
            fmt::format("image-size = {} is not a multiple of patch-size = {}", config.image_size, patch));
    }
    cls_token_ = add_parameter("cls_token", {1, 1, width}, Start::normal(1e-6));
    pos_embed_ = add_parameter("pos_embed", {1, 1 + grid * grid, width}, linear_weights);
    mask_token_ = add_parameter("mask_token", {1, width}, Start::constant(0));

    const auto embed = register_module("patch_embed", std::make_shared<torch::nn::Module>());
    const auto projection = embed->register_module("proj", std::make_shared<Layer>());
    const auto start = framework_default(3 * patch * patch);
    patch_weight_ = projection->add_parameter("weight", {width, 3, patch, patch}, start);
    patch_bias_ = projection->add_parameter("bias", {width}, start);

    const BlockConfig block{.width = width,
                            .heads = config.heads,
                            .norm_eps = 1e-6,
                            .layer_scale = config.layerscale,
                            .width_weights = linear_weights,
                            .hidden_weights = linear_weights,
                            .names = dinov2_names};
    const auto blocks = register_module("blocks", std::make_shared<torch::nn::Module>());
    const int chunk_size = config.block_chunks > 0 ? std::max(config.depth / config.block_chunks, 1) : 0;
    auto chunk = blocks;
    for (int i = 0; i < config.depth; ++i) {
        if (chunk_size > 0 && i % chunk_size == 0) {
            chunk = blocks->register_module(std::to_string(i / chunk_size),
                                            std::make_shared<torch::nn::Module>());
        }
        blocks_.push_back(chunk->register_module(std::to_string(i), TransformerBlock(block)));
    }
    norm_ = register_module("norm", LayerNorm(width, 1e-6));
}

at::Tensor VisionTransformerImpl::embed_patches(const at::Tensor& images) const
{
    const std::int64_t patch = config_.patch_size;
    if (images.dim() != 4 || images.size(1) != 3 || images.size(2) % patch != 0 ||
        images.size(3) % patch != 0) {
        throw DataError(
            "images",
            fmt::format("shape [{}], expected [batch, 3, height, width] with multiples of {} pixels",
                        fmt::join(images.sizes(), ", "), patch));
    }
    // A convolution whose stride is its kernel is one matrix product over the patches.
    const auto batch = images.size(0), rows = images.size(2) / patch, columns = images.size(3) / patch;
    const auto patches = images.reshape({batch, 3, rows, patch, columns, patch})
                             .permute({0, 2, 4, 1, 3, 5})
                             .reshape({batch, rows * columns, 3 * patch * patch});
    return at::linear(patches, patch_weight_.flatten(1), patch_bias_);
}

at::Tensor VisionTransformerImpl::position_table(std::int64_t rows, std::int64_t columns) const
{
    const std::int64_t grid = config_.image_size / config_.patch_size;
    if (rows == grid && columns == grid) return pos_embed_;
    const auto table = pos_embed_.to(at::kFloat);
    const auto patches =
        table.narrow(1, 1, grid * grid).reshape({1, grid, grid, config_.width}).permute({0, 3, 1, 2});
    const auto scale = [&](std::int64_t n) { return (double(n) + 0.1) / double(grid); };
    const auto resized = at::upsample_bicubic2d(patches, std::nullopt, false,
                                                std::vector<double>{scale(rows), scale(columns)});
    const auto flat = resized.permute({0, 2, 3, 1}).reshape({1, rows * columns, config_.width});
    return at::cat({table.narrow(1, 0, 1), flat}, 1).to(pos_embed_.scalar_type());
}

at::Tensor VisionTransformerImpl::input_tokens(const at::Tensor& images, const at::Tensor& mask) const
{
    auto patches = embed_patches(images);
    if (mask.defined()) {
        patches = at::where(mask.unsqueeze(-1), mask_token_.to(patches.scalar_type()), patches);
    }
    const auto cls = cls_token_.to(patches.scalar_type()).expand({images.size(0), 1, config_.width});
    const auto table =
        position_table(images.size(2) / config_.patch_size, images.size(3) / config_.patch_size);
    return at::cat({cls, patches}, 1) + table;
}

at::Tensor VisionTransformerImpl::run_blocks(at::Tensor x, const StochasticDepth& depth) const
{
    if (!depth.empty() && depth.size() != 2 * blocks_.size()) {
        throw InternalError("stochastic depth for another number of blocks");
    }
    for (std::size_t i = 0; i < blocks_.size(); ++i) {
        x = depth.empty() ? blocks_[i]->forward(x) : blocks_[i]->forward(x, depth[2 * i], depth[2 * i + 1]);
    }
    return norm_->forward(x);
}

ImageTokens VisionTransformerImpl::forward_features(const at::Tensor& images, const at::Tensor& mask,
                                                    const StochasticDepth& depth) const
{
    const auto tokens = run_blocks(input_tokens(images, mask), depth);
    return {tokens.select(1, 0), tokens.narrow(1, 1, tokens.size(1) - 1)};
}

at::Tensor VisionTransformerImpl::cls_attention(const at::Tensor& images) const
{
    auto x = input_tokens(images);
    for (std::size_t i = 0; i + 1 < blocks_.size(); ++i) {
        x = blocks_[i]->forward(x);
    }
    return blocks_.back()->attention_weights(x, 0).narrow(2, 1, x.size(1) - 1);
}

at::Tensor VisionTransformerImpl::tokens_without_position(const at::Tensor& images) const
{
    return run_blocks(embed_patches(images), {});
}

}  // namespace astroclip::nn
