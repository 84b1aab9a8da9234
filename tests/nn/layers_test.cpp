#include "nn/layers.hpp"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>

namespace astroclip::nn {
namespace {

// Two parameters, registered in either order.
class Pair : public Layer {
public:
    explicit Pair(bool reversed)
    {
        const auto start = Start::truncated_normal(0.5, 1);
        if (reversed) second = add_parameter("second", {300, 200}, start);
        first = add_parameter("first", {300, 200}, start);
        if (!reversed) second = add_parameter("second", {300, 200}, start);
    }
    at::Tensor first, second;
};

TEST(Initialise, DependsOnSeedAndNameAlone)
{
    Pair one(false), other(true), another_seed(false), another_prefix(false);
    initialise(one, 7);
    initialise(other, 7);
    initialise(another_seed, 8);
    initialise(another_prefix, 7, "teacher.");
    EXPECT_TRUE(one.first.equal(other.first));
    EXPECT_TRUE(one.second.equal(other.second));
    EXPECT_FALSE(one.first.equal(one.second));
    EXPECT_FALSE(one.first.equal(another_seed.first));
    EXPECT_FALSE(one.first.equal(another_prefix.first));
}

TEST(Initialise, TruncatesTheDistributionInsteadOfClampingIt)
{
    Pair pair(false);
    initialise(pair, 1);
    const auto& x = pair.first;  // standard normal cut at ±2, times 0.5; 60,000 draws
    EXPECT_LE(x.abs().max().item<double>(), 1.0);
    EXPECT_GT(x.abs().max().item<double>(), 0.99);
    EXPECT_EQ(x.abs().eq(1).sum().item<std::int64_t>(), 0);
    EXPECT_NEAR(x.mean().item<double>(), 0, 0.006);  // 3 standard errors
    // Variance of a standard normal within ±2: 1 - 2·2·φ(2)/(2Φ(2) - 1) = 0.7737.
    EXPECT_NEAR(x.var().item<double>(), 0.25 * 0.7737, 0.003);
}

TEST(Dropout, IsAFunctionOfTheObjectAndNotOfTheBatch)
{
    const auto x = at::ones({3, 500});
    const auto batch = Dropout(5, 10, {100, 200, 300}).apply(x, 0.1, "mlp");
    const auto alone = Dropout(5, 10, {200}).apply(x.narrow(0, 0, 1), 0.1, "mlp");
    EXPECT_TRUE(batch.narrow(0, 1, 1).equal(alone));
    EXPECT_FALSE(batch[0].equal(batch[1]));
    EXPECT_FALSE(Dropout(5, 11, {200}).apply(x.narrow(0, 0, 1), 0.1, "mlp").equal(alone));
    EXPECT_FALSE(Dropout(5, 10, {200}).apply(x.narrow(0, 0, 1), 0.1, "other").equal(alone));
}

TEST(Dropout, KeepsTheMeanAndLeavesTheRestUnchanged)
{
    const auto y = Dropout(1, 0, {1, 2, 3, 4}).apply(at::ones({4, 5000}), 0.1, "x");
    const auto zeros = y.eq(0).sum().item<double>() / 20000;
    EXPECT_NEAR(zeros, 0.1, 0.0064);  // 3 standard errors
    EXPECT_TRUE(y.masked_select(y.ne(0)).eq(float(1 / 0.9)).all().item<bool>());
}

}  // namespace
}  // namespace astroclip::nn
