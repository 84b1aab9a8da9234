#include "catalogue/few_shot.hpp"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "core/error.hpp"
#include "support/deterministic_fill.hpp"

namespace astroclip::catalogue {
namespace {

double r2(const at::Tensor& truth, const at::Tensor& predicted)
{
    return 1 - ((truth - predicted).square().sum() / (truth - truth.mean()).square().sum()).item<double>();
}

// Two properties that five features tell, one linearly and one not, in odd units.
struct Known {
    at::Tensor x = test::fill_tensor(1, {1600, 5}), y;
    Known()
    {
        const auto wide = x.to(at::kDouble);
        y = at::stack({1000 + 50 * wide.select(1, 0), 1e-3 * wide.select(1, 1) * wide.select(1, 2)}, 1);
    }
    at::Tensor train(const at::Tensor& of) const { return of.narrow(0, 0, 1200); }
    at::Tensor test(const at::Tensor& of) const { return of.narrow(0, 1200, 400); }
};

TEST(FewShot, LearnsWhatTheFeaturesTell)
{
    const Known known;
    const auto [predicted, epoch, trained] =
        few_shot_regression(known.train(known.x), known.train(known.y), known.test(known.x), {.epochs = 40});
    EXPECT_EQ(epoch, 40);
    EXPECT_EQ(trained, 40);
    ASSERT_EQ(predicted.sizes(), (at::IntArrayRef{400, 2}));
    const auto truth = known.test(known.y);
    EXPECT_GT(r2(truth.select(1, 0), predicted.select(1, 0)), 0.9);
    EXPECT_GT(r2(truth.select(1, 1), predicted.select(1, 1)), 0.5);
}

TEST(FewShot, IsAFunctionOfTheSeed)
{
    const Known known;
    const auto run = [&](std::uint64_t seed) {
        return few_shot_regression(known.train(known.x), known.train(known.y), known.test(known.x),
                                   {.epochs = 1, .seed = seed})
            .predicted;
    };
    EXPECT_TRUE(run(1).equal(run(1)));
    EXPECT_FALSE(run(1).equal(run(2)));
}

// Labels that nothing tells: after some epochs the loss of those held out only rises.
TEST(FewShot, EndsWhenTheValidationLossNoLongerFalls)
{
    const auto x = test::fill_tensor(2, {200, 5}), y = test::fill_tensor(3, {200, 1});
    FewShotConfig config{.dropout = 0, .epochs = 400, .validation_fraction = 0.2, .patience = 7};
    const auto early = few_shot_regression(x, y, x, config);
    EXPECT_LT(early.trained, 400);
    EXPECT_EQ(early.trained, early.epoch + 7);
    config.epochs = early.trained;
    config.patience = 0;
    EXPECT_TRUE(few_shot_regression(x, y, x, config).predicted.equal(early.predicted));
}

TEST(FewShot, RefusesAnEmptyTrainingSetAndTellsOfNumbersThatAreNone)
{
    EXPECT_THROW(few_shot_regression(at::empty({0, 5}), at::empty({0}), at::ones({2, 5}), {}), DataError);
    EXPECT_THROW(few_shot_regression(at::full({4, 5}, NAN), at::ones({4}), at::ones({2, 5}), {}),
                 NumericsError);
}

}  // namespace
}  // namespace astroclip::catalogue
