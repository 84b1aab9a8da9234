#include "ssl/moco_loss.hpp"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "core/error.hpp"
#include "ssl/info_nce.hpp"
#include "support/deterministic_fill.hpp"
#include "support/ranks.hpp"
#include "support/reference.hpp"

namespace astroclip::ssl {
namespace {

using test::fill_tensor;
using test::relative_difference;

TEST(MocoLoss, HasTheKnownValue)
{
    const auto queue = unit_rows(fill_tensor(3, {8, 32}).t().contiguous(), 1e-12).t();
    const auto loss = moco_loss(fill_tensor(1, {4, 8}), fill_tensor(2, {4, 8}), queue, 0.2);
    EXPECT_NEAR(loss.item<double>(), 4.070690, 5e-6);
}

TEST(MocoLoss, GivesQueriesTheGradientOfTheFormulaAndKeysNone)
{
    const auto queries = fill_tensor(1, {4, 8}).to(at::kDouble).requires_grad_();
    const auto keys = fill_tensor(2, {4, 8}).to(at::kDouble).requires_grad_();
    const auto queue = fill_tensor(3, {8, 32}).to(at::kDouble);
    moco_loss(queries, keys, queue, 0.2).backward();
    const auto found = queries.grad().clone();
    EXPECT_FALSE(keys.grad().defined());

    queries.mutable_grad().reset();
    const auto q = queries / queries.norm(2, {1}, true), k = (keys / keys.norm(2, {1}, true)).detach();
    const auto positive = (q * k).sum(1) / 0.2;
    const auto all = at::cat({positive.unsqueeze(1), q.matmul(queue) / 0.2}, 1);
    (all.logsumexp(1) - positive).mean().backward();
    EXPECT_LT(relative_difference(found, queries.grad()), 1e-12);
}

TEST(MocoQueue, StartsWithUnitKeysOfTheSeed)
{
    const MocoQueue queue(8, 32, 5);
    EXPECT_TRUE(queue.keys().norm(2, {0}, false).allclose(at::ones({32}), 1e-6));
    EXPECT_TRUE(queue.keys().equal(MocoQueue(8, 32, 5).keys()));
    EXPECT_FALSE(queue.keys().equal(MocoQueue(8, 32, 6).keys()));
}

TEST(MocoQueue, TakesTheKeysOfAllRanksInTheirOrderAndTurnsRound)
{
    const auto ranks = test::all_ranks();
    MocoQueue queue(8, 16, 5);
    const auto oldest = fill_tensor(1, {8, 8}), middle = fill_tensor(2, {8, 8}),
               newest = fill_tensor(3, {8, 8});
    for (const auto& keys : {oldest, middle, newest}) {
        queue.push(ranks, ranks.share(keys));
    }
    EXPECT_TRUE(queue.keys().equal(at::cat({newest, middle}).t()));
    MocoQueue uneven(8, 20, 5);
    EXPECT_THROW(uneven.push(ranks, ranks.share(oldest)), ConfigError);
}

TEST(MocoQueue, AndLossDoNotDependOnTheNumberOfRanks)
{
    const auto ranks = test::all_ranks();
    const auto alone = test::this_rank_alone();
    MocoQueue whole(8, 32, 5), shared(8, 32, 5);
    for (std::uint64_t step = 0; step < 3; ++step) {
        const auto queries = fill_tensor(2 * step, {8, 8}), keys = fill_tensor(2 * step + 1, {8, 8});
        const auto expected = moco_loss(queries, keys, whole.keys(), 0.2);
        const auto own = moco_loss(ranks.share(queries), ranks.share(keys), shared.keys(), 0.2);
        EXPECT_LT(relative_difference(ranks.mean(own), expected), 1e-6);  // rounding of float32
        whole.push(alone, keys);
        shared.push(ranks, ranks.share(keys));
        EXPECT_TRUE(shared.keys().equal(whole.keys()));
    }
}

TEST(MocoQueue, GoesOnFromItsState)
{
    const auto alone = test::this_rank_alone();
    MocoQueue queue(8, 16, 5), resumed(8, 16, 6);
    queue.push(alone, fill_tensor(1, {4, 8}));
    resumed.load_state(queue.state());
    queue.push(alone, fill_tensor(2, {4, 8}));
    resumed.push(alone, fill_tensor(2, {4, 8}));
    EXPECT_TRUE(resumed.keys().equal(queue.keys()));
    EXPECT_THROW(MocoQueue(8, 32, 5).load_state(queue.state()), DataError);
    EXPECT_THROW(queue.load_state({{"queue", queue.keys()}, {"queue_ptr", at::full({1}, 16, at::kLong)}}),
                 DataError);
}

}  // namespace
}  // namespace astroclip::ssl
