#include "data/spectrum_gaps.hpp"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

namespace astroclip::data {
namespace {

TEST(SpectrumGaps, TokensGiveTheirSamplesBack)
{
    const SpectrumTokensConfig config;
    const auto flux = at::randn({3, 400}) + 2;
    const auto tokens = spectrum_tokens(flux, config);
    const auto samples = samples_of_tokens(tokens, 400, config);
    // 38 sections: the last one, samples 380 to 399, is dropped and shares its first ten with its neighbour.
    EXPECT_TRUE(
        samples.narrow(1, 0, 390).allclose(standardised(flux, config).values.narrow(1, 0, 390), 0, 1e-6));
    EXPECT_TRUE(samples.narrow(1, 390, 10).eq(0).all().item<bool>());
}

TEST(SpectrumGaps, HiddenIsWhatNoVisibleTokenCovers)
{
    const SpectrumTokensConfig config;
    // Tokens 4 to 8 are sections 3 to 7, samples 30 to 89; sections 2 and 8 show 20 to 39 and 80 to 99.
    const auto hidden = hidden_samples(at::tensor({4, 0}, at::kLong).view({1, 2}), 5, 400, config);
    auto expected = at::zeros({1, 400}, at::kBool);
    expected.narrow(1, 40, 40).fill_(true);
    expected.narrow(1, 0, 40).fill_(true);  // tokens 0 to 4: the statistics and sections 0 to 3
    EXPECT_TRUE(hidden.equal(expected));
}

TEST(SpectrumGaps, InterpolationIsExactForAStraightLine)
{
    const auto line = at::arange(100, at::kFloat).view({1, 100}) * 0.25 - 3;
    auto hidden = at::zeros({1, 100}, at::kBool);
    hidden.narrow(1, 30, 25).fill_(true);
    hidden.narrow(1, 90, 10).fill_(true);
    const auto spoiled = at::where(hidden, at::full_like(line, 1e6), line);
    const auto filled = interpolated(spoiled, hidden, 8);
    EXPECT_TRUE(filled.narrow(1, 0, 90).allclose(line.narrow(1, 0, 90), 0, 1e-5));
    // At the end: the mean of samples 82 to 89.
    EXPECT_TRUE(filled.narrow(1, 90, 10).allclose(at::full({1, 10}, 85.5 * 0.25 - 3), 0, 1e-5));
}

}  // namespace
}  // namespace astroclip::data
