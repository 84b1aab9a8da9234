#include "catalogue/metrics.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "core/random.hpp"

namespace astroclip::catalogue {
namespace {

TEST(R2, IsOneForTheTruthAndZeroForItsMean)
{
    const std::vector<double> truth{1, 2, 3, 6}, mean(4, 3.0);
    EXPECT_DOUBLE_EQ(r2(truth, truth), 1.0);
    EXPECT_DOUBLE_EQ(r2(truth, mean), 0.0);
    EXPECT_DOUBLE_EQ(r2(truth, std::vector<double>{2, 2, 3, 6}), 1.0 - 1.0 / 14.0);
    EXPECT_TRUE(std::isnan(r2(mean, truth)));
}

TEST(RedshiftErrors, AreRelativeToOnePlusTheTruth)
{
    const std::vector<double> truth{0.0, 1.0, 0.5}, predicted{0.1, 0.8, 0.5};
    const auto errors = redshift_errors(truth, predicted);
    EXPECT_DOUBLE_EQ(errors[0], -0.1);
    EXPECT_NEAR(errors[1], 0.1, 1e-15);
    EXPECT_NEAR(bias(errors), 0.0, 1e-15);
    EXPECT_DOUBLE_EQ(outlier_fraction(errors), 2.0 / 3.0);
    EXPECT_NEAR(sigma_nmad(errors), 0.14826, 1e-12);
}

TEST(SigmaNmad, OfNormalErrorsIsTheirStandardDeviation)
{
    Random random(1, "test");
    std::vector<double> errors(20000);
    for (auto& error : errors) {
        error = 0.3 + 0.02 * random.normal();
    }
    // The standard error of the median absolute deviation is 1.17 σ/√n: five of them.
    EXPECT_NEAR(sigma_nmad(errors), 0.02, 5 * 1.17 * 0.02 / std::sqrt(20000.0));
}

TEST(Median, IsTheMiddleOrTheMeanOfTheMiddleTwo)
{
    EXPECT_EQ(median({3, 1, 2}), 2);
    EXPECT_EQ(median({4, 1, 3, 2}), 2.5);
    EXPECT_TRUE(std::isnan(median({})));
}

TEST(RecallAtK, CountsThePartnersAmongTheFirstK)
{
    const std::vector<std::int64_t> places{1, 2, 10, 11};
    EXPECT_DOUBLE_EQ(recall_at_k(places, 1), 0.25);
    EXPECT_DOUBLE_EQ(recall_at_k(places, 10), 0.75);
    EXPECT_DOUBLE_EQ(recall_at_k(places, 11), 1.0);
}

TEST(Bootstrap, OfAMeanHasTheWidthOfItsStandardError)
{
    Random random(2, "test");
    std::vector<double> values(400);
    for (auto& value : values) {
        value = random.normal();
    }
    const auto mean = [&](std::span<const std::int64_t> rows) {
        double sum = 0.0;
        for (const auto row : rows) {
            sum += values[static_cast<std::size_t>(row)];
        }
        return sum / static_cast<double>(rows.size());
    };
    const auto interval = bootstrap(400, mean, 7);
    // 2 · 1.96/√400 = 0.196; the sample's own deviation and 1000 draws leave some 10 %.
    EXPECT_NEAR(interval.high - interval.low, 0.196, 0.03);
    const auto again = bootstrap(400, mean, 7);
    EXPECT_EQ(interval.low, again.low);
    EXPECT_NE(interval.low, bootstrap(400, mean, 8).low);
}

TEST(Bootstrap, OfR2HoldsTheValueOfTheSample)
{
    Random random(3, "test");
    std::vector<double> truth(200), predicted(200);
    for (std::size_t i = 0; i < truth.size(); ++i) {
        truth[i] = random.normal();
        predicted[i] = truth[i] + 0.5 * random.normal();
    }
    const auto interval = bootstrap_r2(truth, predicted, 1);
    EXPECT_LT(interval.low, r2(truth, predicted));
    EXPECT_GT(interval.high, r2(truth, predicted));
}

}  // namespace
}  // namespace astroclip::catalogue
