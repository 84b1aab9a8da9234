#include "train/gradient_sync.hpp"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "support/deterministic_fill.hpp"
#include "support/ranks.hpp"

namespace astroclip::train {
namespace {

class Sync : public testing::TestWithParam<std::int64_t> {};

// Buckets of one byte (one a parameter), of a few parameters, and one for all.
INSTANTIATE_TEST_SUITE_P(Buckets, Sync, testing::Values(1, 100, 1 << 20));

TEST_P(Sync, GivesTheMeanOverRanksOfEveryGradient)
{
    const auto ranks = test::all_ranks();
    std::vector<at::Tensor> parameters;
    for (std::uint64_t i = 0; i < 7; ++i) {
        parameters.push_back(
            test::fill_tensor(i, {static_cast<std::int64_t>(i) + 2, 3}).requires_grad_(true));
    }
    GradientSync sync(parameters, ranks, GetParam());
    for (int step = 0; step < 3; ++step) {
        sync.begin();
        auto loss = at::zeros({});
        for (std::size_t i = 0; i + 1 < parameters.size(); ++i) {  // nobody uses the last parameter
            if (i == 2 && ranks.rank() != 0) {
                continue;  // only rank 0 uses this one
            }
            loss = loss + (ranks.rank() + step + 1) * (parameters[i] * parameters[i]).sum();
        }
        loss.backward();
        sync.finish();
        const auto factor = step + 1 + (ranks.size() - 1) / 2.0;
        for (std::size_t i = 0; i < parameters.size(); ++i) {
            const auto weight = i == 2                      ? (step + 1.0) / ranks.size()
                                : i + 1 < parameters.size() ? factor
                                                            : 0.0;
            const auto gradient = parameters[i].grad();
            const auto found = gradient.defined() ? gradient : at::zeros_like(parameters[i]);
            EXPECT_TRUE(found.allclose(2 * weight * parameters[i].detach(), 1e-6)) << i;
        }
    }
}

TEST(GradientSync, LeavesParametersFreeWhenItEnds)
{
    const auto ranks = test::all_ranks();
    const auto parameter = at::ones({3}).requires_grad_(true);
    {
        GradientSync sync({parameter}, ranks, 100);
        sync.begin();
        parameter.sum().backward();
        sync.finish();
    }
    parameter.mutable_grad().reset();
    (parameter * (ranks.rank() + 1)).sum().backward();  // no hook calls into what is gone
    EXPECT_EQ(parameter.grad()[0].item<float>(), static_cast<float>(ranks.rank() + 1));
}

}  // namespace
}  // namespace astroclip::train
