#include "catalogue/principal_components.hpp"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "support/deterministic_fill.hpp"

namespace astroclip::catalogue {
namespace {

TEST(PrincipalComponents, ProjectionKeepsAllDistancesWithinThePlaneOfTheData)
{
    const auto plane = test::fill_tensor(1, {2, 30});
    for (const std::int64_t rows : {10, 100}) {  // fewer rows than columns, and more
        const auto sample = test::fill_tensor(2, {rows, 2}).matmul(plane) + 3;
        const auto projected = PrincipalComponents::of(sample, 2).project(sample);
        // float32 in and out
        EXPECT_TRUE(at::allclose(at::pdist(projected), at::pdist(sample), 1e-5, 1e-5)) << rows;
    }
}

TEST(PrincipalComponents, FirstDirectionIsThatOfLargestVariance)
{
    auto sample = 0.1 * test::fill_tensor(3, {200, 4});
    sample.select(1, 2) *= 50;
    const auto components = PrincipalComponents::of(sample, 9);
    EXPECT_EQ(components.directions.size(1), 4);
    EXPECT_NEAR(std::abs(components.directions[2][0].item<float>()), 1, 1e-3);
}

}  // namespace
}  // namespace astroclip::catalogue
