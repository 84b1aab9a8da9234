#include "ssl/effective_rank.hpp"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "core/error.hpp"
#include "support/deterministic_fill.hpp"

namespace astroclip::ssl {
namespace {

TEST(EffectiveRank, IsTheNumberOfEquallyUsedDirections)
{
    EXPECT_NEAR(effective_rank(at::eye(8), 8), 8, 1e-9);
    EXPECT_NEAR(effective_rank(at::eye(8).narrow(1, 0, 3), 8), 3, 1e-9);
    EXPECT_NEAR(effective_rank(at::eye(8, 20), 8), 8, 1e-9);
    EXPECT_NEAR(effective_rank(at::ones({8, 5}), 8), 1, 1e-6);
}

TEST(EffectiveRank, IsTheMeanOverGroups)
{
    const auto x = test::fill_tensor(1, {24, 10});
    double sum = 0;
    for (int group = 0; group < 4; ++group) {
        sum += effective_rank(x.narrow(0, 6 * group, 6), 6);
    }
    EXPECT_NEAR(effective_rank(x, 6), sum / 4, 1e-12);
    EXPECT_THROW(effective_rank(x, 7), InternalError);
}

TEST(CollapseWatch, TellsAFallAfterTheFirstStepsOnceAndAgainAfterARecovery)
{
    CollapseWatch watch;
    EXPECT_FALSE(watch.fell(60, 0));
    EXPECT_FALSE(watch.fell(2, 101));
    EXPECT_FALSE(watch.fell(20, 102));
    EXPECT_FALSE(watch.fell(12, 103));
    EXPECT_TRUE(watch.fell(9, 104));
    EXPECT_FALSE(watch.fell(8, 105));
    EXPECT_FALSE(watch.fell(15, 106));
    EXPECT_TRUE(watch.fell(5, 107));
    EXPECT_EQ(watch.best(), 20);
}

}  // namespace
}  // namespace astroclip::ssl
