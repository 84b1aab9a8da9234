#include "catalogue/posterior.hpp"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>
#include <numbers>

#include "catalogue/spline.hpp"
#include "core/error.hpp"
#include "core/random.hpp"
#include "support/deterministic_fill.hpp"
#include "support/ranks.hpp"

namespace astroclip::catalogue {
namespace {

SplineParameters published_case()
{
    return {test::fill_tensor(21, {2, 4, 8}).softmax(-1), test::fill_tensor(22, {2, 4, 8}).softmax(-1),
            at::softplus(test::fill_tensor(23, {2, 4, 7}))};
}

TEST(Spline, EqualsThePublishedOne)
{
    const auto y = spline(4 * test::fill_tensor(24, {2, 4}), published_case());
    const auto value =
        at::tensor({-3.875565, 2.781829, -3.002139, 1.763005, 2.143975, -2.417280, -0.599113, -0.493334})
            .view({2, 4});
    const auto slope =
        at::tensor({0., 1.265615, 0., -1.502070, -0.599921, 1.198778, -0.748156, 0.161817}).view({2, 4});
    EXPECT_LT((y.value - value).abs().max().item<double>(), 2e-6);  // given to six decimals, float32
    EXPECT_LT((y.log_derivative - slope).abs().max().item<double>(), 5e-6);
}

TEST(Spline, ComesBack)
{
    auto parameters = published_case();
    for (auto* one : {&parameters.widths, &parameters.heights, &parameters.derivatives}) {
        *one = one->to(at::kDouble);
    }
    const auto x = 4 * test::fill_tensor(24, {2, 4}).to(at::kDouble);
    const auto y = spline(x, parameters);
    const auto back = inverse_spline(y.value, parameters);
    EXPECT_LT((back.value - x).abs().max().item<double>(), 1e-12);
    EXPECT_LT((back.log_derivative + y.log_derivative).abs().max().item<double>(), 1e-11);
}

// y = context + noise of a known width: the posterior is that normal distribution.
struct Known {
    static constexpr std::int64_t train = 3000, all = 4000;
    static constexpr double width = 0.3;
    at::Tensor x = at::empty({all, 2}), y = at::empty({all, 2}, at::kDouble);
    Known()
    {
        Random random(1, "known-posterior");
        for (std::int64_t i = 0; i < all; ++i) {
            for (int p = 0; p < 2; ++p) {
                const auto c = random.normal();
                x.data_ptr<float>()[2 * i + p] = static_cast<float>(c);
                y.data_ptr<double>()[2 * i + p] = c + width * random.normal();
            }
        }
    }
};

TEST(Posterior, OfAKnownCaseIsCalibratedAndHasItsEntropyOnAnyNumberOfRanks)
{
    const auto ranks = test::all_ranks();
    const auto alone = test::this_rank_alone();
    const Known known;
    const auto part = [](const at::Tensor& of, bool test) {
        return test ? of.narrow(0, Known::train, Known::all - Known::train) : of.narrow(0, 0, Known::train);
    };
    const auto ask = [&](const comm::World& world) {
        return estimate_posteriors(world, part(known.x, false), part(known.y, false), part(known.x, true),
                                   part(known.y, true), {.flows = 2, .learning_rate = 5e-3, .epochs = 20});
    };
    const auto found = ask(ranks.world);
    // Entropy of both normals, in units of the properties' own deviation √(1 + width²).
    const auto relative = Known::width / std::sqrt(1 + Known::width * Known::width);
    const auto entropy = 2 * (0.5 * std::log(2 * std::numbers::pi * std::numbers::e) + std::log(relative));
    EXPECT_NEAR(found.nll.mean().item<double>(), entropy, 0.15);  // 3000 galaxies, a small network
    const auto flat = found.pit.flatten().contiguous();
    const auto fits =
        calibration({flat.const_data_ptr<double>(), flat.const_data_ptr<double>() + flat.numel()});
    EXPECT_NEAR(fits.within_68, 0.68, 0.06);
    EXPECT_NEAR(fits.within_95, 0.95, 0.03);
    EXPECT_LT(fits.ks, 0.06);
    if (ranks.size() > 1) {
        const auto again = ask(alone.world);
        EXPECT_TRUE(again.pit.equal(found.pit));
        EXPECT_TRUE(again.nll.equal(found.nll));
    }
}

TEST(Posterior, CalibrationOfUniformNumbersIsPerfectAndOfNarrowOnesIsNot)
{
    std::vector<double> uniform, narrow;
    for (int i = 0; i < 1000; ++i) {
        uniform.push_back((i + 0.5) / 1000);
        narrow.push_back(0.4 + 0.2 * (i + 0.5) / 1000);
    }
    EXPECT_NEAR(calibration(uniform).ks, 0.0005, 1e-9);
    EXPECT_NEAR(calibration(uniform).within_68, 0.68, 1e-9);
    EXPECT_NEAR(calibration(narrow).ks, 0.4, 1e-3);
    EXPECT_EQ(calibration(narrow).within_68, 1);
}

TEST(Posterior, RefusesTooFewGalaxies)
{
    const auto alone = test::this_rank_alone();
    EXPECT_THROW(estimate_posteriors(alone.world, at::ones({5, 2}), at::ones({5, 1}), at::ones({1, 2}),
                                     at::ones({1, 1}), {}),
                 DataError);
}

}  // namespace
}  // namespace astroclip::catalogue
