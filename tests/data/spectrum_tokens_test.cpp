#include "data/spectrum_tokens.hpp"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>

#include "core/error.hpp"
#include "support/reference.hpp"

namespace astroclip::data {
namespace {

// Two smooth spectra of L bins, computed in double precision: the inputs of the check values.
at::Tensor wavy_spectra(std::int64_t samples)
{
    const auto j = at::arange(samples, at::kDouble);
    const auto strong = 2 + 1.5 * (0.01 * j).sin() + 0.5 * (0.37 * j).sin();
    const auto faint = 0.3 + 0.1 * (0.02 * j).cos();
    return at::stack({strong, faint}).to(at::kFloat);
}

double length_of(const at::Tensor& x) { return x.to(at::kDouble).norm().item<double>(); }

TEST(SpectrumTokens, EqualThoseOfThePublishedCode)
{
    const auto reference = test::read_reference(TEST_DATA "/data/spectrum_tokens.safetensors");
    for (const std::string name : {"main", "exact"}) {
        const auto tokens = spectrum_tokens(reference.at(name + "/in/spectrum"));
        EXPECT_LT(test::relative_difference(tokens, reference.at(name + "/out/preprocessed")), 1e-5) << name;
    }
}

TEST(SpectrumTokens, OfADesiSpectrumHaveTheKnownValues)
{
    const auto tokens = spectrum_tokens(wavy_spectra(7781));
    ASSERT_EQ(tokens.sizes(), at::IntArrayRef({2, 778, 22}));
    // Printed digits of the reference, which was computed in float32: hence 2e-4.
    EXPECT_NEAR(tokens[0][0][0].item<double>(), 0.016835, 1e-5);
    EXPECT_NEAR(tokens[0][0][1].item<double>(), -0.109914, 1e-5);
    EXPECT_NEAR(tokens[0][777][21].item<double>(), 1.10810, 2e-4);
    EXPECT_NEAR(length_of(tokens[0]), 124.7019, 2e-4 * 124.7);
    EXPECT_NEAR(tokens[1][0][0].item<double>(), -0.850316, 1e-5);
    EXPECT_NEAR(tokens[1][0][1].item<double>(), -0.225, 1e-6);
    EXPECT_NEAR(tokens[1][777][21].item<double>(), 0.03872, 1e-5);
    EXPECT_NEAR(length_of(tokens[1]), 44.07063, 2e-4 * 44.07);
}

TEST(SpectrumTokens, LeaveOutTheLastSectionWhateverItsLength)
{
    for (const auto& [samples, tokens] : std::vector<std::pair<int, int>>{
             {7781, 778}, {7780, 777}, {7790, 778}, {400, 39}, {50, 4}, {40, 3}, {39, 3}}) {
        EXPECT_EQ(token_count(samples), tokens) << samples;
        EXPECT_EQ(spectrum_tokens(at::ones({1, samples})).size(1), tokens) << samples;
    }
    EXPECT_THROW(token_count(20), DataError);
    EXPECT_THROW(token_count(100, {.section_length = 10, .overlap = 10}), ConfigError);
}

TEST(SpectrumTokens, HoldEverySampleOfTheSpectrumInItsPlace)
{
    const SpectrumTokensConfig config{.section_length = 12, .overlap = 5, .std_min = 0.0};
    const auto flux = at::arange(100, at::kDouble).unsqueeze(0);
    const auto tokens = spectrum_tokens(flux, config);
    const auto samples = tokens.slice(2, 2) * flux.std() + flux.mean();
    for (std::int64_t t = 1; t < tokens.size(1); ++t) {
        EXPECT_TRUE(samples[0][t].allclose(flux[0].narrow(0, 7 * (t - 1), 12), 1e-12, 1e-9)) << t;
    }
}

TEST(SpectrumTokens, CanLeaveBadBinsOutOfStatisticsAndValues)
{
    const SpectrumTokensConfig config{.bad_bins = "leave-out"};
    const auto flux = at::randn({2, 400}) + 3;
    auto ivar = at::ones({2, 400});
    ivar.narrow(1, 100, 35).fill_(0);
    auto spoiled = flux.clone();
    spoiled.narrow(1, 100, 35).fill_(1e5);
    const auto tokens = spectrum_tokens(flux, config, ivar);
    EXPECT_TRUE(spectrum_tokens(spoiled, config, ivar).equal(tokens));
    const auto good = at::cat({flux.narrow(1, 0, 100), flux.narrow(1, 135, 265)}, 1);
    const auto own = standardised(flux, config, ivar);
    EXPECT_TRUE(own.mean.allclose(good.mean(1, true), 1e-5, 1e-6));
    EXPECT_TRUE(own.std.allclose(good.std(at::OptionalIntArrayRef({1}), at::Scalar(1), true), 1e-5, 1e-6));
    EXPECT_TRUE(own.values.narrow(1, 100, 35).eq(0).all().item<bool>());
    EXPECT_TRUE(
        spectrum_tokens(flux, config, at::ones({2, 400})).allclose(spectrum_tokens(flux), 1e-4, 1e-5));
    EXPECT_THROW(spectrum_tokens(flux, config), InternalError);
}

TEST(SpectrumTokens, OfWhateverIngestionAcceptsAreFinite)
{
    // The widest values that ingestion lets through, in spectra that are empty, constant, spiked or of one
    // good bin.
    for (const std::string bad_bins : {"keep", "leave-out"}) {
        for (const double std_min : {0.0, 0.2}) {
            const SpectrumTokensConfig config{.std_min = std_min, .bad_bins = bad_bins};
            for (const double level : {0.0, 1e-30, 1.0, 1e15, -1e15}) {
                auto flux = at::full({3, 400}, level, at::kFloat);
                flux[1].narrow(0, 50, 3).fill_(-level);
                flux[2] *= at::randn({400}).clamp(-1, 1);
                auto ivar = at::zeros({3, 400});
                ivar[1].fill_(1e30);
                ivar[2][17] = 1e-30;
                const auto tokens = spectrum_tokens(flux, config, ivar);
                EXPECT_TRUE(tokens.isfinite().all().item<bool>())
                    << bad_bins << " " << std_min << " " << level;
                EXPECT_TRUE(token_weights(ivar, config).isfinite().all().item<bool>()) << level;
            }
        }
    }
}

TEST(SpectrumTokens, OfConstantSpectraAreZerosAndNeverNaN)
{
    const auto flux = at::stack({at::zeros({7781}), at::full({7781}, 3.0)});
    const auto published = spectrum_tokens(flux);
    EXPECT_NEAR(published[0][0][0].item<double>(), -1.0, 1e-6);
    EXPECT_NEAR(published[0][0][1].item<double>(), -0.225, 1e-6);
    EXPECT_EQ(length_of(published[0].slice(0, 1)), 0.0);
    const auto workshop = spectrum_tokens(flux, {.std_ddof = 0, .std_min = 0.0});
    EXPECT_TRUE(workshop.isfinite().all().item<bool>());
    EXPECT_EQ(length_of(workshop[0].slice(0, 1)), 0.0);
    EXPECT_NEAR(workshop[0][0][1].item<double>(), -0.25, 1e-6);
}

}  // namespace
}  // namespace astroclip::data
