#include "data/block_masks.hpp"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "core/error.hpp"

namespace astroclip::data {

void bind(config::Section options, BlockMasksConfig& config)
{
    using config::between;
    options
        .option("mask-probability", config.probability,
                "share of the global crops with hidden patches (iBOT)", between(0, 1))
        .option("mask-min-ratio", config.min_ratio, "smallest share of patches that they hide", between(0, 1))
        .option("mask-max-ratio", config.max_ratio, "largest share of patches that they hide", between(0, 1));
}

namespace {

constexpr double smallest_block = 4;  // patches
constexpr int tries = 10;
const double widest_log_aspect = std::log(1 / 0.3);

struct Rectangle {
    std::int64_t top, left, height, width;
};

// Calls visit(patch) for each patch of the rectangle.
template <typename Visit>
void for_each_patch(const Rectangle& block, std::int64_t grid, const Visit& visit)
{
    for (auto row = block.top; row < block.top + block.height; ++row) {
        for (auto column = block.left; column < block.left + block.width; ++column) {
            visit(row * grid + column);
        }
    }
}

// Hides a rectangle with at most `most` patches that were visible; how many it hid, 0 if no try fitted.
std::int64_t add_block(Random& random, bool* hidden, std::int64_t grid, std::int64_t most)
{
    const auto side = [](double length) { return std::int64_t(std::nearbyint(std::sqrt(length))); };
    for (int i = 0; i < tries; ++i) {
        const double area = random.uniform(smallest_block, double(most));
        const double aspect = std::exp(random.uniform(-widest_log_aspect, widest_log_aspect));
        Rectangle block{0, 0, side(area * aspect), side(area / aspect)};
        if (block.height >= grid || block.width >= grid) continue;
        block.top = std::int64_t(random.below(std::uint64_t(grid - block.height + 1)));
        block.left = std::int64_t(random.below(std::uint64_t(grid - block.width + 1)));
        std::int64_t newly = 0;
        for_each_patch(block, grid, [&](std::int64_t patch) { newly += !hidden[patch]; });
        if (newly == 0 || newly > most) continue;
        for_each_patch(block, grid, [&](std::int64_t patch) { hidden[patch] = true; });
        return newly;
    }
    return 0;
}

struct Crop {
    double lot;
    std::int64_t row;  // in the batch
    Random random;
};

std::vector<Crop> draw_lots(std::span<const std::int64_t> object_ids, std::int64_t first, std::int64_t count,
                            std::int64_t views, std::uint64_t seed, std::uint32_t epoch)
{
    std::vector<Crop> crops;
    for (std::int64_t view = 0; view < views; ++view) {
        const auto purpose = fmt::format("block-mask-{}", view);
        for (auto image = first; image < first + count; ++image) {
            Random random(seed, purpose, epoch, std::uint64_t(object_ids[image]));
            const double lot = random.uniform();
            crops.push_back({lot, view * std::int64_t(object_ids.size()) + image, random});
        }
    }
    // 53 bits: equal lots do not occur; stable, so that even they would not depend on the library.
    std::stable_sort(crops.begin(), crops.end(), [](const Crop& a, const Crop& b) { return a.lot < b.lot; });
    return crops;
}

}  // namespace

at::Tensor block_mask(Random& random, std::int64_t grid, std::int64_t target)
{
    auto mask = at::zeros({grid * grid}, at::kBool);
    std::int64_t hidden = 0;
    while (hidden < target) {
        const auto most = std::min(target - hidden, grid * grid / 2);
        const auto newly = add_block(random, mask.data_ptr<bool>(), grid, most);
        if (newly == 0) break;
        hidden += newly;
    }
    return mask;
}

at::Tensor block_masks(std::span<const std::int64_t> object_ids, std::int64_t group_images,
                       std::int64_t views, std::int64_t grid, std::uint64_t seed, std::uint32_t epoch,
                       const BlockMasksConfig& config)
{
    const auto images = std::int64_t(object_ids.size());
    if (images % group_images != 0) {
        throw InternalError(fmt::format("block masks: {} images are not groups of {}", images, group_images));
    }
    auto masks = at::zeros({views * images, grid * grid}, at::kBool);
    const auto masked = std::int64_t(double(views * group_images) * config.probability);
    for (std::int64_t first = 0; first < images; first += group_images) {
        auto crops = draw_lots(object_ids, first, group_images, views, seed, epoch);
        for (std::int64_t bin = 0; bin < masked; ++bin) {
            auto& crop = crops[std::size_t(bin)];
            const double within = (double(bin) + crop.random.uniform()) / double(masked);
            const double ratio = config.min_ratio + (config.max_ratio - config.min_ratio) * within;
            const auto target = std::int64_t(double(grid * grid) * ratio);
            masks[crop.row].copy_(block_mask(crop.random, grid, target));
        }
    }
    return masks;
}

}  // namespace astroclip::data
