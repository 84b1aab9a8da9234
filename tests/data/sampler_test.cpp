#include "data/sampler.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <set>

#include "core/error.hpp"

namespace astroclip::data {
namespace {

std::vector<std::int64_t> epoch_of(Sampler& sampler, std::int64_t epoch, int ranks = 1)
{
    std::vector<std::int64_t> order;
    const auto steps = sampler.steps_per_epoch();
    for (auto step = epoch * steps; step < (epoch + 1) * steps; ++step) {
        for (int rank = 0; rank < ranks; ++rank) {
            const auto slice = sampler.slice(step, rank, ranks);
            order.insert(order.end(), slice.begin(), slice.end());
        }
    }
    return order;
}

const Sampler::Shape small{.block = 8, .window_blocks = 4};

TEST(Sampler, ShowsEverySampleOnceAnEpoch)
{
    for (const std::int64_t samples : {1000, 1001, 37, 12}) {
        Sampler sampler(samples, 12, 1, small);
        for (std::int64_t epoch = 0; epoch < 3; ++epoch) {
            const auto order = epoch_of(sampler, epoch);
            const std::set<std::int64_t> seen(order.begin(), order.end());
            EXPECT_EQ(order.size(), static_cast<std::size_t>(samples / 12 * 12));
            EXPECT_EQ(seen.size(), order.size());
            EXPECT_GE(*seen.begin(), 0);
            EXPECT_LT(*seen.rbegin(), samples);
        }
    }
}

TEST(Sampler, HasTheSameOrderForAnyNumberOfRanks)
{
    Sampler sampler(500, 12, 1, small);
    const auto expected = epoch_of(sampler, 2);
    for (const int ranks : {2, 3, 4, 12}) {
        EXPECT_EQ(epoch_of(sampler, 2, ranks), expected);
    }
}

TEST(Sampler, IsAFunctionOfTheStepAlone)
{
    Sampler in_order(500, 12, 1, small), jumping(500, 12, 1, small);
    std::vector<std::vector<std::int64_t>> slices;
    for (std::int64_t step = 0; step < 120; ++step) {
        slices.push_back(in_order.slice(step, 1, 3));
    }
    for (const std::int64_t step : {119, 3, 80, 41, 40, 0}) {
        EXPECT_EQ(jumping.slice(step, 1, 3), slices[static_cast<std::size_t>(step)]);
    }
}

TEST(Sampler, ShufflesDifferentlyInEachEpochAndForEachSeed)
{
    Sampler one(960, 12, 1, small), other(960, 12, 2, small);
    EXPECT_NE(epoch_of(one, 0), epoch_of(one, 1));
    EXPECT_NE(epoch_of(one, 0), epoch_of(other, 0));
    auto sorted = epoch_of(one, 0);
    std::sort(sorted.begin(), sorted.end());
    EXPECT_NE(epoch_of(one, 0), sorted);
}

TEST(Sampler, KeepsWhatIsReadTogetherInFewBlocks)
{
    Sampler sampler(4096, 32, 1, small);  // a window is 32 samples of 4 blocks
    for (std::int64_t step = 0; step < sampler.steps_per_epoch(); ++step) {
        std::set<std::int64_t> blocks;
        for (const auto sample : sampler.slice(step, 0, 1)) {
            blocks.insert(sample / small.block);
        }
        EXPECT_EQ(blocks.size(), 4u);
    }
}

TEST(Sampler, RefusesABatchThatSamplesOrRanksDoNotFit)
{
    EXPECT_THROW(Sampler(11, 12, 1), ConfigError);
    Sampler sampler(100, 12, 1);
    EXPECT_THROW(sampler.slice(0, 0, 5), ConfigError);
}

}  // namespace
}  // namespace astroclip::data
