#include "core/random.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <set>

namespace astroclip {
namespace {

TEST(Philox, GivesThePublishedKnownAnswers)
{
    // Known-answer vectors of Salmon et al.'s Random123 for Philox4x32-10.
    EXPECT_EQ(philox4x32({0, 0, 0, 0}, {0, 0}),
              (std::array<std::uint32_t, 4>{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
    EXPECT_EQ(philox4x32({~0u, ~0u, ~0u, ~0u}, {~0u, ~0u}),
              (std::array<std::uint32_t, 4>{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
}

TEST(Random, DependsOnSeedPurposeEpochAndObjectAlone)
{
    const auto first = [](Random random) { return random.bits(); };
    const auto base = first(Random(1, "mask", 2, 3));
    EXPECT_EQ(base, first(Random(1, "mask", 2, 3)));
    EXPECT_NE(base, first(Random(2, "mask", 2, 3)));
    EXPECT_NE(base, first(Random(1, "crop", 2, 3)));
    EXPECT_NE(base, first(Random(1, "mask", 3, 3)));
    EXPECT_NE(base, first(Random(1, "mask", 2, 4)));
    EXPECT_NE(base, first(Random(1, "mask", 2, 3 + (std::uint64_t{1} << 32))));
}

TEST(Random, DrawsHaveTheirMomentsAndBounds)
{
    Random random(7, "moments");
    constexpr int n = 100'000;
    double uniform = 0, normal = 0, square = 0;
    std::set<std::uint64_t> faces;
    for (int i = 0; i < n; ++i) {
        const auto u = random.uniform();
        ASSERT_GE(u, 0.0);
        ASSERT_LT(u, 1.0);
        uniform += u;
        const auto x = random.normal();
        normal += x;
        square += x * x;
        faces.insert(random.below(6));
    }
    // Five standard errors of a mean of n draws.
    EXPECT_NEAR(uniform / n, 0.5, 5 * std::sqrt(1.0 / 12 / n));
    EXPECT_NEAR(normal / n, 0.0, 5 / std::sqrt(n));
    EXPECT_NEAR(square / n, 1.0, 5 * std::sqrt(2.0 / n));
    EXPECT_EQ(faces, (std::set<std::uint64_t>{0, 1, 2, 3, 4, 5}));
}

}  // namespace
}  // namespace astroclip
