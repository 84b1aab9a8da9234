#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <span>

#include "config/options.hpp"
#include "core/random.hpp"

namespace astroclip::data {

// Which patches of the global crops are hidden from the student (iBOT as DINOv2 runs it): of the crops of a
// group, int(crops·probability) are masked, their shares of hidden patches spread evenly over
// [min_ratio, max_ratio]: one uniform draw in each of as many equal bins.
struct BlockMasksConfig {
    double probability = 0.5;  // of a crop to be masked
    double min_ratio = 0.1;    // of patches that a masked crop hides
    double max_ratio = 0.5;
};
void bind(config::Section options, BlockMasksConfig& config);

// Block-wise masks of the `views` global crops of each image, row view·b + image. Images are coupled in
// groups of `group_images` consecutive ones. Every crop draws a lot; their order within the group says which
// crops are masked and which bin is whose: all is a function of (seed, epoch, view) and the ids of the group.
//
//   object_ids  b ids, a multiple of group_images
//   return      [views·b, grid·grid] bool, row-major over the patches; true: hidden
at::Tensor block_masks(std::span<const std::int64_t> object_ids, std::int64_t group_images,
                       std::int64_t views, std::int64_t grid, std::uint64_t seed, std::uint32_t epoch,
                       const BlockMasksConfig& config = {});

// One mask of up to `target` of grid·grid patches [grid·grid] bool, made of rectangles (Bao et al. 2022):
// area uniform from 4 to what is left of the target (at most half of all patches), log aspect ratio uniform
// within ±ln(10/3), sides rounded and shorter than the grid. A rectangle that hides nothing new or too much
// is drawn again; after 10 of them the mask stays short of its target, never above it.
at::Tensor block_mask(Random& random, std::int64_t grid, std::int64_t target);

}  // namespace astroclip::data
