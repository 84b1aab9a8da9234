#include "catalogue/regression.hpp"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "catalogue/metrics.hpp"
#include "core/error.hpp"
#include "support/deterministic_fill.hpp"
#include "support/ranks.hpp"
#include "support/reference.hpp"

namespace astroclip::catalogue {
namespace {

using test::fill_tensor;

std::vector<double> column(const at::Tensor& table, std::int64_t i)
{
    const auto values = table.to(at::kDouble).view({table.size(0), -1}).select(1, i).contiguous();
    return {values.data_ptr<double>(), values.data_ptr<double>() + values.numel()};
}

TEST(KnnRegression, HasTheKnownNeighboursAndPredictions)
{
    const auto ranks = test::all_ranks();
    const auto result = knn_regression(ranks.world, fill_tensor(31, {20, 4}), fill_tensor(32, {20}),
                                       fill_tensor(33, {5, 4}), {.neighbours = 3});
    const auto expected = at::tensor({-0.015423, 0.633755, 0.592909, 0.254027, 0.057953}, at::kDouble);
    EXPECT_TRUE(result.predicted.squeeze(1).allclose(expected, 0, 1e-6));
    const auto rows =
        at::tensor({15, 4, 17, 13, 16, 0, 17, 7, 6, 0, 19, 13, 13, 19, 4}, at::kLong).view({5, 3});
    EXPECT_TRUE(result.neighbours.equal(rows));
    EXPECT_NEAR(r2(column(fill_tensor(34, {5}), 0), column(result.predicted, 0)), -3.326107, 2e-6);
}

TEST(KnnRegression, EqualsThePublishedEvaluation)
{
    const auto ranks = test::all_ranks();
    const auto reference = test::read_reference(TEST_DATA "/catalogue/downstream.safetensors");
    const auto& train = reference.at("knn/in/x_train");
    const auto& targets = reference.at("knn/in/y_train");
    const auto& query = reference.at("knn/in/x_test");  // its row 0 is a row of the training set
    const auto scale = ColumnScale::of(train);
    EXPECT_LT(test::relative_difference(scale.standardise(query), reference.at("knn/out/x_test_scaled")),
              1e-6);

    const auto result = knn_regression(ranks.world, train, targets, query);
    EXPECT_LT(test::relative_difference(result.predicted, reference.at("knn/out/prediction")), 1e-6);
    for (std::int64_t property = 0; property < 4; ++property) {
        EXPECT_NEAR(r2(column(reference.at("knn/in/y_test"), property), column(result.predicted, property)),
                    reference.at("knn/out/r2")[property].item<double>(), 1e-5);
    }
    const auto raw = knn_regression(ranks.world, train, targets.select(1, 0), query, {.standardise = false});
    EXPECT_LT(test::relative_difference(raw.predicted.squeeze(1),
                                        reference.at("knn/out/prediction_unscaled_single")),
              1e-6);
}

TEST(KnnRegression, DoesNotDependOnTheNumberOfRanks)
{
    const auto ranks = test::all_ranks();
    const auto alone = test::this_rank_alone();
    const auto train = fill_tensor(1, {300, 12}), targets = fill_tensor(2, {300, 2}),
               query = fill_tensor(3, {333, 12});
    const auto whole = knn_regression(alone.world, train, targets, query);
    const auto shared = knn_regression(ranks.world, train, targets, query);
    EXPECT_TRUE(shared.predicted.equal(whole.predicted));
    EXPECT_TRUE(shared.neighbours.equal(whole.neighbours));
}

TEST(KnnRegression, CountsOnlyTheCoincidentNeighboursEqually)
{
    const auto alone = test::this_rank_alone();
    const auto train = at::tensor({0.0, 0.0, 0.1, 0.2, 5.0}, at::kDouble).unsqueeze(1);
    const auto targets = at::tensor({1.0, 3.0, 100.0, 100.0, 7.0}, at::kDouble);
    const auto query = at::tensor({0.0, 5.0}, at::kDouble).unsqueeze(1);
    const auto result = knn_regression(alone.world, train, targets, query, {.neighbours = 4});
    EXPECT_DOUBLE_EQ(result.predicted[0][0].item<double>(), 2.0);
    EXPECT_DOUBLE_EQ(result.predicted[1][0].item<double>(), 7.0);
    EXPECT_TRUE(result.neighbours[0].equal(at::tensor({0, 1, 2, 3}, at::kLong)));
}

TEST(KnnRegression, LeavesOutTheQueryItselfAndTellsTheScatterOfTheOthers)
{
    const auto train = at::tensor({0.0, 1.0, 3.0, 3.0}, at::kDouble).unsqueeze(1);
    const auto targets = at::tensor({2.0, 4.0, 7.0, 9.0}, at::kDouble);
    const KnnRegression regression(train, targets, {.neighbours = 2, .standardise = false});
    const auto query = at::tensor({0.0, 3.0, 0.0}, at::kDouble).unsqueeze(1);
    const auto found = regression.predict(query, at::tensor({0, 2, -1}, at::kLong));
    // The neighbours of row 0 are at distances 1 and 3; that of row 2 coincides with it; the last is no row.
    const auto mean = (4.0 + 7.0 / 3) / (1 + 1.0 / 3);
    EXPECT_NEAR(found.predicted[0].item<double>(), mean, 1e-12);
    const auto variance = (std::pow(4 - mean, 2) + std::pow(7 - mean, 2) / 3) / (1 + 1.0 / 3);
    EXPECT_NEAR(found.scatter[0].item<double>(), std::sqrt(variance), 1e-12);
    EXPECT_DOUBLE_EQ(found.predicted[1].item<double>(), 9.0);
    EXPECT_DOUBLE_EQ(found.scatter[1].item<double>(), 0.0);
    EXPECT_DOUBLE_EQ(found.predicted[2].item<double>(), 2.0);
}

TEST(KnnRegression, CopesWithConstantColumnsAndSmallTrainingSets)
{
    const auto alone = test::this_rank_alone();
    const auto train = at::tensor({1.0, 4.0, 2.0, 4.0}, at::kDouble).view({2, 2});
    const auto result = knn_regression(alone.world, train, at::tensor({0.0, 1.0}, at::kDouble),
                                       at::tensor({1.5, 4.0}, at::kDouble).view({1, 2}));
    EXPECT_DOUBLE_EQ(result.predicted.item<double>(), 0.5);
    EXPECT_EQ(result.neighbours.size(1), 2);
    EXPECT_THROW(knn_regression(alone.world, at::zeros({0, 2}), at::zeros({0}), train), DataError);
}

}  // namespace
}  // namespace astroclip::catalogue
