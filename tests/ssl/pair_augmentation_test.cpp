#include "ssl/pair_augmentation.hpp"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <numeric>

#include "core/error.hpp"

namespace astroclip::ssl {
namespace {

constexpr std::int64_t count = 300, side = 12, crop = 6;

// Images whose pixels say where they are, and flat spectra.
data::Batch batch()
{
    data::Batch pairs;
    pairs.object_ids.resize(count);
    std::iota(pairs.object_ids.begin(), pairs.object_ids.end(), 40);
    pairs.images = at::arange(side * side, at::kFloat).view({1, 1, side, side}).repeat({count, 3, 1, 1});
    pairs.spectra = at::full({count, 500}, 3.0, at::kFloat);
    pairs.ivar = at::full({count, 500}, 4.0, at::kFloat);
    pairs.ivar.narrow(1, 0, 100).zero_();
    return pairs;
}

data::Batch changed(const PairAugmentation& config, std::uint32_t step = 3, bool training = true)
{
    return augmented(batch(), config, crop, 7, step, training);
}

TEST(PairAugmentation, ChangesNothingByDefault)
{
    EXPECT_FALSE(PairAugmentation{}.changes_anything());
    EXPECT_TRUE(changed({}).images.equal(batch().images));
    EXPECT_TRUE(changed({}).spectra.equal(batch().spectra));
}

TEST(PairAugmentation, ShiftsEveryWayAsFarAsItMay)
{
    const auto images = changed({.shift = 2}).images;
    ASSERT_EQ(images.size(2), side - 4);
    const auto corner = images.index({at::indexing::Slice(), 0, 0, 0}).to(at::kLong);
    const auto row = at::floor_divide(corner, side), column = corner.remainder(side);
    for (const auto& offset : {row, column}) {
        EXPECT_EQ(offset.min().item<std::int64_t>(), 0);
        EXPECT_EQ(offset.max().item<std::int64_t>(), 4);
        // The mean of 300 draws from 0 … 4, whose deviation is sqrt(2); five standard errors.
        EXPECT_NEAR(offset.to(at::kFloat).mean().item<double>(), 2, 0.41);
    }
    EXPECT_TRUE(images.equal(changed({.shift = 2}).images));
    EXPECT_FALSE(images.equal(changed({.shift = 2}, 4).images));
    EXPECT_THROW(changed({.shift = 4}), DataError);
}

TEST(PairAugmentation, AddsNoiseOfEachBinsOwnDeviationWhereItIsKnown)
{
    const auto noise = changed({.spectrum_noise = 2}).spectra - 3;
    EXPECT_EQ(noise.narrow(1, 0, 100).abs().max().item<double>(), 0);
    const auto known = noise.narrow(1, 100, 400).to(at::kDouble);  // 2 times 1/sqrt(4); 120,000 draws
    EXPECT_NEAR(known.mean().item<double>(), 0, 0.015);
    EXPECT_NEAR(known.std().item<double>(), 1, 0.011);
}

TEST(PairAugmentation, LeavesValidationAloneButForFlipsThatAreAlways)
{
    const PairAugmentation train{.flips = "train", .shift = 2, .spectrum_noise = 1};
    EXPECT_TRUE(changed(train, 0, false).images.equal(batch().images));
    EXPECT_TRUE(changed(train, 0, false).spectra.equal(batch().spectra));
    EXPECT_FALSE(changed({.flips = "always"}, 0, false).images.equal(batch().images));
}

// A spectrum that is 1 at the bands' centres and everywhere between: what it becomes there must be what the
// image becomes, and the inverse variance its inverse square.
TEST(PairAugmentation, ChangesFluxOfBothAlike)
{
    auto pairs = batch();
    pairs.images = at::ones_like(pairs.images);
    pairs.spectra = at::ones({count, 3}, at::kFloat);
    pairs.ivar = at::ones({count, 3}, at::kFloat);
    pairs.wavelength = at::tensor({4730.0, 6420.0, 9260.0}, at::kDouble);
    const PairAugmentation config{.brightness = 0.5, .colour = 0.1};
    const auto both = augmented(pairs, config, crop, 7, 3, true);
    const auto of_image = both.images.select(3, 0).select(2, 0);
    EXPECT_TRUE(of_image.allclose(both.spectra, 1e-6));
    EXPECT_TRUE(both.ivar.allclose(both.spectra.pow(-2), 1e-5));

    const auto mag = -2.5 * of_image.log10();
    const auto common = mag.mean(1, true);
    EXPECT_LE(mag.abs().max().item<double>(), 0.6);
    EXPECT_GT(common.max().item<double>(), 0.4);
    EXPECT_LT(common.min().item<double>(), -0.4);
    EXPECT_GT((mag - common).abs().max().item<double>(), 0.1);
    EXPECT_TRUE(augmented(pairs, config, crop, 7, 3, false).spectra.equal(pairs.spectra));
}

}  // namespace
}  // namespace astroclip::ssl
