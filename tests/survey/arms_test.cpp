#include "survey/arms.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "core/random.hpp"

namespace astroclip::survey {
namespace {

constexpr float nan = std::numeric_limits<float>::quiet_NaN();

ArmSpectrum constant(int first_bin, std::size_t pixels, float flux, float ivar, std::uint32_t mask = 0)
{
    return {first_bin, std::vector<float>(pixels, flux), std::vector<float>(pixels, ivar),
            std::vector<std::uint32_t>(pixels, mask)};
}

// DESI's arms: B 0-2750, R 2700-5025, Z 4900-7780.
std::vector<ArmSpectrum> three_arms()
{
    return {constant(0, 2751, 1, 1), constant(2700, 2326, 2, 3), constant(4900, 2881, 4, 2)};
}

TEST(Arms, CoverTheGridOf7781Bins)
{
    const auto wavelength = desi_wavelength();
    ASSERT_EQ(wavelength.size(), 7781u);
    EXPECT_EQ(wavelength.front(), 3600);
    EXPECT_NEAR(wavelength.back(), 9824, 1e-9);
    const auto spectrum = combine_arms(three_arms(), ArmRule::edr);
    for (int i = 0; i < desi_bins; ++i) {
        ASSERT_GT(spectrum.ivar[i], 0) << i;
    }
}

TEST(Arms, WeightOverlapsByInverseVariance)
{
    for (const auto rule : {ArmRule::edr, ArmRule::current}) {
        const auto s = combine_arms(three_arms(), rule);
        EXPECT_EQ(s.flux[2699], 1);
        EXPECT_EQ(s.flux[2700], 1.75f);  // (1·1 + 3·2) / 4
        EXPECT_EQ(s.ivar[2750], 4);
        EXPECT_EQ(s.flux[2751], 2);
        EXPECT_EQ(s.flux[4900], 2.8f);  // (3·2 + 2·4) / 5
        EXPECT_EQ(s.flux[5026], 4);
    }
}

TEST(Arms, LeaveMaskedPixelsOutByTheRuleOfTheEarlyDataRelease)
{
    auto arms = three_arms();
    arms[0].mask[10] = 4;    // no other arm here
    arms[0].mask[2710] = 4;  // R is good here
    arms[0].mask[2711] = 4;
    arms[1].mask[11] = 6;  // bin 2711: both bad; the common bit stays
    const auto s = combine_arms(arms, ArmRule::edr);
    EXPECT_EQ(s.flux[10], 0);
    EXPECT_EQ(s.ivar[10], 0);
    EXPECT_EQ(s.mask[10], 4u);
    EXPECT_EQ(s.flux[2710], 2);
    EXPECT_EQ(s.ivar[2710], 3);
    EXPECT_EQ(s.mask[2710], 0u);
    EXPECT_EQ(s.mask[2711], 4u);
    EXPECT_EQ(s.ivar[2711], 0);
}

TEST(Arms, CopyOutsideOverlapsByTheCurrentRule)
{
    auto arms = three_arms();
    arms[0].mask[10] = 4;
    arms[0].ivar[10] = 0;
    arms[0].mask[2710] = 4;
    const auto s = combine_arms(arms, ArmRule::current);
    EXPECT_EQ(s.flux[10], 1);  // copied, masked or not
    EXPECT_EQ(s.ivar[10], 0);
    EXPECT_EQ(s.mask[10], 4u);
    EXPECT_EQ(s.flux[2710], 1.75f);
    EXPECT_EQ(s.mask[2710], 0u);
}

TEST(Arms, MarkBinsThatNoArmCovers)
{
    const std::vector<ArmSpectrum> blue{constant(0, 2751, 1, 1)};
    const auto s = combine_arms(blue, ArmRule::edr);
    EXPECT_EQ(s.mask[2751], no_data_bit);
    EXPECT_EQ(s.ivar[7780], 0);
    EXPECT_EQ(s.flux[7780], 0);
}

TEST(Arms, CountPixelsThatClaimToBeGoodAndAreNotNumbers)
{
    auto arms = three_arms();
    arms[0].flux[5] = nan;                                     // damaged
    arms[0].flux[6] = nan, arms[0].ivar[6] = 0;                // no claim
    arms[1].ivar[7] = std::numeric_limits<float>::infinity();  // damaged
    arms[2].flux[8] = nan, arms[2].mask[8] = 1;                // no claim
    arms[2].ivar[100] = -1;                                    // no weight, but finite
    for (const auto rule : {ArmRule::edr, ArmRule::current}) {
        const auto s = combine_arms(arms, rule);
        EXPECT_EQ(s.damaged_pixels, 2);
        for (int i = 0; i < desi_bins; ++i) {
            ASSERT_TRUE(std::isfinite(s.flux[i]) && std::isfinite(s.ivar[i]) && s.ivar[i] >= 0) << i;
        }
    }
}

TEST(Arms, GiveFiniteSpectraWhateverTheyAreGiven)
{
    Random random(3, "arms-test");
    const float odd[] = {0, 1, -1, nan, std::numeric_limits<float>::infinity(), 1e38f, -1e38f, 1e-38f};
    auto arms = three_arms();
    for (int round = 0; round < 20; ++round) {
        for (auto& arm : arms) {
            for (std::size_t i = 0; i < arm.flux.size(); ++i) {
                arm.flux[i] = odd[random.below(8)];
                arm.ivar[i] = odd[random.below(8)];
                arm.mask[i] = static_cast<std::uint32_t>(random.below(3));
            }
        }
        const auto s = combine_arms(arms, round % 2 ? ArmRule::edr : ArmRule::current);
        for (int i = 0; i < desi_bins; ++i) {
            ASSERT_TRUE(std::isfinite(s.flux[i]) && std::isfinite(s.ivar[i]) && s.ivar[i] >= 0) << i;
        }
    }
}

TEST(Arms, CoaddExposuresLikeOneLongOne)
{
    auto first = constant(0, 3, 1, 1), second = constant(0, 3, 5, 3);
    second.mask[1] = 2;
    first.mask[2] = 3;
    second.mask[2] = 2;
    const std::vector<ArmSpectrum> exposures{first, second};
    const auto coadd = coadd_exposures(exposures);
    EXPECT_EQ(coadd.flux, (std::vector<float>{4, 1, 0}));
    EXPECT_EQ(coadd.ivar, (std::vector<float>{4, 1, 0}));
    EXPECT_EQ(coadd.mask, (std::vector<std::uint32_t>{0, 0, 2}));
}

TEST(Arms, KeepOneExposureAsItIs)
{
    auto only = constant(0, 3, 1, 1);
    only.mask[1] = 2;
    const auto coadd = coadd_exposures(std::vector<ArmSpectrum>{only});
    EXPECT_EQ(coadd.flux, only.flux);
    EXPECT_EQ(coadd.ivar, only.ivar);
    EXPECT_EQ(coadd.mask, only.mask);
}

TEST(Arms, KeepADamagedExposureVisible)
{
    auto first = constant(0, 2, 1, 1), second = constant(0, 2, 1, 1);
    second.flux[1] = nan;
    const auto coadd = coadd_exposures(std::vector<ArmSpectrum>{first, second});
    EXPECT_EQ(combine_arms(std::vector<ArmSpectrum>{coadd}, ArmRule::edr).damaged_pixels, 1);
}

}  // namespace
}  // namespace astroclip::survey
