#include "catalogue/morphology.hpp"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>

#include "core/error.hpp"
#include "support/deterministic_fill.hpp"

namespace astroclip::catalogue {
namespace {

TEST(Morphology, FindsAnswersThatTheFeaturesTell)
{
    const auto x = test::fill_tensor(1, {900, 4});
    const auto shares = (4 * x.narrow(1, 0, 3)).softmax(1);  // the largest of three features wins
    const auto predicted =
        predict_shares(x.narrow(0, 0, 700), shares.narrow(0, 0, 700), x.narrow(0, 700, 200), {.batch = 64});
    EXPECT_TRUE(predicted.sum(1).allclose(at::ones({200})));
    const auto scores = morphology_scores(shares.narrow(0, 700, 200), predicted);
    EXPECT_GT(scores.accuracy, 0.9);
    EXPECT_GT(scores.f1, 0.9);
    EXPECT_LT(scores.majority, 0.6);
    EXPECT_EQ(scores.confusion.sum().item<std::int64_t>(), 200);
}

// By hand: truths 0 0 1 (1 and 2 tie) 2, predictions 0 1 1 1 2.
TEST(Morphology, ScoresAreExactMatchesAndF1WeightedBySupport)
{
    const auto shares = at::tensor({.8, .1, .1, .6, .3, .1, .1, .8, .1, .2, .4, .4, 0., 0., 1.}).view({5, 3});
    const auto predicted =
        at::tensor({.9, .05, .05, .2, .7, .1, .1, .8, .1, .1, .8, .1, .1, .1, .8}).view({5, 3});
    const auto scores = morphology_scores(shares, predicted);
    EXPECT_DOUBLE_EQ(scores.accuracy, 3.0 / 5);  // the tie is never met exactly
    // F1: class 0: 2·1/(2+1), class 1: 2·2/(2+3), class 2: 2·1/(2+1); supports 2, 2, 2.
    EXPECT_NEAR(scores.f1, (2.0 / 3 + 4.0 / 5 + 2.0 / 3) / 3, 1e-12);
    EXPECT_DOUBLE_EQ(scores.majority, 2.0 / 5);
}

TEST(Morphology, TalliesResamplesAsTheScoresOfTheRowsThemselves)
{
    const auto shares = test::fill_tensor(3, {60, 4}).softmax(1);
    const auto predicted = test::fill_tensor(4, {60, 4}).softmax(1);
    const MorphologyTally tally(shares, predicted);
    ASSERT_EQ(tally.size(), 60);
    std::vector<std::int64_t> rows;
    for (std::int64_t i = 0; i < 40; ++i) rows.push_back(i * i % 23);
    const auto some = at::tensor(rows, at::kLong);
    const auto expected = morphology_scores(shares.index_select(0, some), predicted.index_select(0, some));
    EXPECT_DOUBLE_EQ(tally.accuracy(rows), expected.accuracy);
    EXPECT_DOUBLE_EQ(tally.f1(rows), expected.f1);
    EXPECT_GT(tally.f1(rows), 0);
    EXPECT_TRUE(std::isnan(tally.accuracy({})));
    EXPECT_TRUE(std::isnan(tally.f1({})));
}

TEST(Morphology, AsksTheTenQuestionsByTheirColumns)
{
    ASSERT_EQ(galaxy_zoo_questions().size(), 10);
    const auto& first = galaxy_zoo_questions().front();
    EXPECT_EQ(first.votes_column(), "smooth-or-featured_total-votes");
    EXPECT_EQ(first.answer_column(1), "smooth-or-featured_featured-or-disk_debiased");
}

TEST(Morphology, RefusesTooFewGalaxiesAndVotesForOneAnswerAlone)
{
    const auto x = test::fill_tensor(1, {40, 4});
    EXPECT_THROW(predict_shares(x.narrow(0, 0, 5), at::ones({5, 2}), x, {}), DataError);
    const auto one = at::cat({at::ones({40, 1}), at::zeros({40, 2})}, 1);
    EXPECT_THROW(predict_shares(x, one, x, {}), DataError);
}

}  // namespace
}  // namespace astroclip::catalogue
