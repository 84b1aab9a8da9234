#include "data/block_masks.hpp"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "core/error.hpp"

namespace astroclip::data {
namespace {

std::vector<std::int64_t> ids(std::int64_t count)
{
    std::vector<std::int64_t> all(count);
    std::iota(all.begin(), all.end(), 1000);
    return all;
}

at::Tensor rows(const at::Tensor& masks, std::int64_t image, std::int64_t images)
{
    return at::stack({masks[image], masks[images + image]});
}

TEST(BlockMasks, HideHalfOfTheCropsInSharesSpreadEvenly)
{
    const auto masks = block_masks(ids(72), 72, 2, 12, 7, 0);
    ASSERT_EQ(masks.sizes(), (std::vector<std::int64_t>{144, 144}));
    const auto hidden = std::get<0>(masks.sum(1).sort());
    EXPECT_EQ(hidden.narrow(0, 0, 72).sum().item<std::int64_t>(), 0);
    for (int bin = 0; bin < 72; ++bin) {
        // One crop a bin; a mask misses its target by a few patches at most.
        const double low = 14.4 + 57.6 * bin / 72, high = low + 0.8;
        const auto count = hidden[72 + bin].item<std::int64_t>();
        EXPECT_LE(count, int(high)) << bin;
        EXPECT_GE(count, int(low) - 4) << bin;
    }
}

// 400 draws; the published means, and 5 standard errors of the widest spread (0.29) and of theirs.
TEST(BlockMask, ReachesAsManyPatchesAsThePublishedOne)
{
    const std::pair<int, double> published[] = {
        {14, 13.96}, {30, 29.95}, {43, 42.94}, {57, 56.94}, {72, 71.95}};
    for (const auto& [target, mean] : published) {
        double sum = 0;
        for (std::uint64_t draw = 0; draw < 400; ++draw) {
            Random random(3, "test", std::uint32_t(target), draw);
            const auto count = block_mask(random, 12, target).sum().item<std::int64_t>();
            EXPECT_LE(count, target);
            sum += double(count);
        }
        EXPECT_NEAR(sum / 400, mean, 5 * std::sqrt(2.0) * 0.29 / 20) << target;
    }
}

TEST(BlockMasks, DependOnSeedEpochAndObjectsOfTheGroupAlone)
{
    const auto all = ids(8);
    const auto masks = block_masks(all, 4, 2, 12, 7, 3);
    EXPECT_TRUE(block_masks(all, 4, 2, 12, 7, 3).equal(masks));
    EXPECT_FALSE(block_masks(all, 4, 2, 12, 7, 4).equal(masks));
    EXPECT_FALSE(block_masks(all, 4, 2, 12, 8, 3).equal(masks));
    // The second group by itself, as another rank would hold it, and in another order of its images.
    const auto alone = block_masks(std::span(all).subspan(4), 4, 2, 12, 7, 3);
    auto reversed = std::vector(all.begin() + 4, all.end());
    std::reverse(reversed.begin(), reversed.end());
    const auto turned = block_masks(reversed, 4, 2, 12, 7, 3);
    for (int image = 0; image < 4; ++image) {
        EXPECT_TRUE(rows(alone, image, 4).equal(rows(masks, 4 + image, 8)));
        EXPECT_TRUE(rows(turned, 3 - image, 4).equal(rows(alone, image, 4)));
    }
    EXPECT_THROW(block_masks(all, 3, 2, 12, 7, 3), InternalError);
}

TEST(BlockMask, EndsOnGridsTooSmallForItsBlocks)
{
    for (std::uint64_t draw = 0; draw < 50; ++draw) {
        Random random(3, "test", 0, draw);
        EXPECT_LE(block_mask(random, 2, 2).sum().item<std::int64_t>(), 2);
        EXPECT_EQ(block_mask(random, 12, 0).sum().item<std::int64_t>(), 0);
    }
}

}  // namespace
}  // namespace astroclip::data
