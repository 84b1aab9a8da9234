#include "catalogue/small_network.hpp"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>

#include "core/error.hpp"

namespace astroclip::catalogue {
namespace {

TEST(Division, HoldsOutTheShareThatIsAskedForOfEveryRowOnce)
{
    const auto parts = divide(1000, 0.2, 1);
    EXPECT_EQ(parts.held_out.size(0), 200);
    const auto all = std::get<0>(at::cat({parts.fitted, parts.held_out}).sort());
    EXPECT_TRUE(all.equal(at::arange(1000, at::kLong)));
    EXPECT_TRUE(divide(1000, 0.2, 1).held_out.equal(parts.held_out));
    EXPECT_FALSE(divide(1000, 0.2, 2).held_out.equal(parts.held_out));
}

TEST(Division, LeavesNoPartEmptyHoweverFewRowsThereAre)
{
    EXPECT_EQ(divide(2, 0.01, 1).held_out.size(0), 1);
    EXPECT_EQ(divide(3, 0.99, 1).fitted.size(0), 1);
    EXPECT_EQ(divide(1, 0.2, 1).fitted.size(0), 1);
    EXPECT_EQ(divide(20, 0, 1).held_out.size(0), 0);
}

TEST(BestEpoch, GivesBackTheParametersOfTheLeastLoss)
{
    const SmallNetwork network({3, 2}, 0, 1);
    const auto weights = network.parameters().front().tensor;
    BestEpoch best(network.parameters());
    const at::NoGradGuard no_grad;
    for (const auto& [epoch, loss] : {std::pair(0, 3.0), std::pair(1, 1.0), std::pair(2, 2.0)}) {
        weights.fill_(loss);
        best.look(epoch, loss);
    }
    best.restore();
    EXPECT_EQ(best.epoch(), 1);
    EXPECT_TRUE(weights.eq(1).all().item<bool>());
}

TEST(BestEpoch, TellsOfLossesThatAreNoNumbers)
{
    const SmallNetwork network({3, 2}, 0, 1);
    BestEpoch best(network.parameters());
    best.look(0, NAN);
    EXPECT_THROW(best.restore(), NumericsError);
}

}  // namespace
}  // namespace astroclip::catalogue
