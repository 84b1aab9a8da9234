#include "survey/split.hpp"

#include <gtest/gtest.h>

#include <cmath>

namespace astroclip::survey {
namespace {

double test_share(std::uint64_t seed, double fraction, std::int64_t first, std::int64_t step)
{
    constexpr int n = 20000;
    int tests = 0;
    for (int i = 0; i < n; ++i) {
        tests += split_of(first + i * step, seed, fraction) == Split::test;
    }
    return static_cast<double>(tests) / n;
}

TEST(Split, HoldsOutTheShareAskedForWhateverTheIds)
{
    // Five standard deviations of 20,000 draws: 0.014.
    EXPECT_NEAR(test_share(42, 0.2, 0, 1), 0.2, 0.014);
    EXPECT_NEAR(test_share(42, 0.2, 39633345008634465, 1 << 22), 0.2, 0.014);
    EXPECT_NEAR(test_share(7, 0.5, -1000, 1), 0.5, 0.018);
}

TEST(Split, KeepsNothingOrAllAtTheEnds)
{
    EXPECT_EQ(test_share(42, 0, 0, 1), 0);
    EXPECT_EQ(test_share(42, 1, 0, 1), 1);
}

TEST(Split, GrowsTheTestSideWithoutMovingWhatIsInIt)
{
    for (std::int64_t id = 0; id < 2000; ++id) {
        if (split_of(id, 42, 0.1) == Split::test) {
            EXPECT_EQ(split_of(id, 42, 0.2), Split::test);
        }
    }
}

TEST(Split, DependsOnTheSeed)
{
    int moved = 0;
    for (std::int64_t id = 0; id < 1000; ++id) {
        moved += split_of(id, 1, 0.5) != split_of(id, 2, 0.5);
    }
    EXPECT_NEAR(moved, 500, 80);
}

}  // namespace
}  // namespace astroclip::survey
