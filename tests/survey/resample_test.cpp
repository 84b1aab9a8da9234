#include "survey/resample.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <numeric>

#include "core/random.hpp"

namespace astroclip::survey {
namespace {

constexpr float nan32 = std::numeric_limits<float>::quiet_NaN();

// Pixels of these widths from `first` on, all good.
PixelSpectrum pixels(double first, const std::vector<double>& widths)
{
    PixelSpectrum spectrum{{first}, {}, {}, std::vector<std::uint32_t>(widths.size())};
    for (const auto width : widths) {
        spectrum.edges.push_back(spectrum.edges.back() + width);
    }
    spectrum.flux.assign(widths.size(), 1);
    spectrum.ivar.assign(widths.size(), 1);
    return spectrum;
}

// The comb of SDSS over all of DESI's grid.
PixelSpectrum sdss_pixels()
{
    std::vector<double> widths;
    double first = 0, at = 0;
    for (int k = 35500; at < 9900; ++k) {
        const auto low = std::pow(10, (k - 0.5) * 1e-4), high = std::pow(10, (k + 0.5) * 1e-4);
        first = widths.empty() ? low : first;
        widths.push_back(high - low);
        at = high;
    }
    return pixels(first, widths);
}

TEST(Resample, LeavesASpectrumOnTheGridAsItIs)
{
    auto on_grid = pixels(3599.6, std::vector<double>(desi_bins, 0.8));
    for (int i = 0; i < desi_bins; ++i) {
        on_grid.flux[i] = static_cast<float>(std::sin(0.01 * i));
        on_grid.ivar[i] = static_cast<float>(1 + i % 7);
    }
    const auto s = resample(on_grid);
    for (int i = 0; i < desi_bins; ++i) {
        EXPECT_NEAR(s.flux[i], on_grid.flux[i], 1e-6);
        EXPECT_NEAR(s.ivar[i], on_grid.ivar[i], 1e-5);
        EXPECT_EQ(s.mask[i], 0u);
    }
}

TEST(Resample, WeighsPixelsByTheirPartOfABin)
{
    // Bin 1 reaches from 3600.4 to 3601.2: a quarter of it is pixel 0, three quarters are pixel 1.
    auto two = pixels(3599.6, {1.0, 0.6});
    two.flux = {2, 6};
    two.ivar = {4, 1};
    const auto s = resample(two);
    EXPECT_FLOAT_EQ(s.flux[0], 2);
    EXPECT_FLOAT_EQ(s.ivar[0], 4);
    EXPECT_FLOAT_EQ(s.flux[1], 0.25f * 2 + 0.75f * 6);
    EXPECT_FLOAT_EQ(s.ivar[1], 1 / (0.0625f / 4 + 0.5625f));
    EXPECT_EQ(s.mask[2], no_data_bit);
    EXPECT_EQ(s.flux[2], 0);
    EXPECT_EQ(s.ivar[2], 0);
}

TEST(Resample, ConservesTheIntegralOfTheFlux)
{
    auto sdss = sdss_pixels();
    Random random(5, "resample", 0, 0);
    double within = 0;
    const double low = 3599.6, high = low + 0.8 * desi_bins;
    for (std::size_t i = 0; i < sdss.flux.size(); ++i) {
        sdss.flux[i] = static_cast<float>(random.normal() + 2);
        within +=
            sdss.flux[i] * std::max(0.0, std::min(high, sdss.edges[i + 1]) - std::max(low, sdss.edges[i]));
    }
    const auto s = resample(sdss);
    const auto sum = 0.8 * std::accumulate(s.flux.begin(), s.flux.end(), 0.0);
    EXPECT_NEAR(sum / within, 1, 1e-8);  // 7781 roundings to float32, of 3e-8 each, at random
}

TEST(Resample, GivesAPixelsErrorToTheBinsInsideIt)
{
    const auto s = resample(pixels(9000, {2.4}));  // spans the bins at 9000.8 and 9001.6 whole
    EXPECT_FLOAT_EQ(s.ivar[6751], 1);
    EXPECT_FLOAT_EQ(s.ivar[6752], 1);
}

TEST(Resample, TakesNothingFromBadPixels)
{
    auto three = pixels(3599.6, {0.8, 0.8, 0.8, 0.8});
    three.flux = {1, 1e30f, nan32, 1};
    three.ivar = {1, 1, 0, 1};
    three.mask[1] = 4;
    const auto s = resample(three);
    EXPECT_EQ(s.damaged_pixels, 0);  // both say that they are bad
    EXPECT_EQ(s.mask[1], no_data_bit);
    EXPECT_EQ(s.mask[2], no_data_bit);
    EXPECT_EQ(s.flux[1], 0);
    EXPECT_FLOAT_EQ(s.flux[3], 1);
}

TEST(Resample, FillsABinOfWhichHalfIsGood)
{
    auto s = resample(pixels(3599.6, {0.8, 0.401}));
    EXPECT_EQ(s.mask[1], 0u);
    EXPECT_FLOAT_EQ(s.flux[1], 1);  // the mean over what is covered
    s = resample(pixels(3599.6, {0.8, 0.399}));
    EXPECT_EQ(s.mask[1], no_data_bit);
}

TEST(Resample, CountsPixelsThatClaimToBeGoodAndAreNot)
{
    auto three = pixels(3599.6, {0.8, 0.8, 0.8});
    three.flux[0] = nan32;
    three.ivar[2] = std::numeric_limits<float>::infinity();
    const auto s = resample(three);
    EXPECT_EQ(s.damaged_pixels, 2);
    EXPECT_EQ(s.ivar[0], 0);
}

TEST(Resample, IsFiniteWhateverThePixels)
{
    auto sdss = sdss_pixels();
    const float values[] = {0, -1, nan32, std::numeric_limits<float>::infinity(), 1e-45f, 3e38f, -3e38f, 1};
    for (std::size_t i = 0; i < sdss.flux.size(); ++i) {
        sdss.flux[i] = values[i % 8];
        sdss.ivar[i] = values[i / 8 % 8];
        sdss.mask[i] = i % 5 == 0;
    }
    const auto s = resample(sdss);
    for (int i = 0; i < desi_bins; ++i) {
        EXPECT_TRUE(std::isfinite(s.flux[i]) && std::isfinite(s.ivar[i]) && s.ivar[i] >= 0) << i;
    }
}

}  // namespace
}  // namespace astroclip::survey
