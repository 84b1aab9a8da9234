#include "ssl/shuffle.hpp"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "core/error.hpp"
#include "support/deterministic_fill.hpp"
#include "support/ranks.hpp"

namespace astroclip::ssl {
namespace {

TEST(Shuffle, IsAPermutationOfSeedAndStep)
{
    auto order = shuffled_rows(100, 1, 7);
    EXPECT_EQ(order, shuffled_rows(100, 1, 7));
    EXPECT_NE(order, shuffled_rows(100, 1, 8));
    EXPECT_NE(order, shuffled_rows(100, 2, 7));
    const auto place = places(order);
    for (std::size_t i = 0; i < order.size(); ++i) {
        EXPECT_EQ(place[static_cast<std::size_t>(order[i])], std::int64_t(i));
    }
    std::sort(order.begin(), order.end());
    for (std::size_t i = 0; i < order.size(); ++i) EXPECT_EQ(order[i], std::int64_t(i));
}

// More rows a rank than pass at once.
TEST(Reordered, RowsAreThoseOfTheGlobalBatchAndComeBack)
{
    const auto ranks = test::all_ranks();
    const auto whole = test::fill_tensor(1, {400, 3, 2});
    const auto order = shuffled_rows(400, 1, 0);
    const auto expected = whole.index_select(0, at::tensor(at::ArrayRef<std::int64_t>(order), at::kLong));
    const auto shuffled = reordered(ranks, ranks.share(whole), order);
    EXPECT_TRUE(shuffled.equal(ranks.share(expected)));
    EXPECT_TRUE(reordered(ranks, shuffled, places(order)).equal(ranks.share(whole)));
    EXPECT_THROW(reordered(ranks, whole, shuffled_rows(10, 1, 0)), InternalError);
}

}  // namespace
}  // namespace astroclip::ssl
