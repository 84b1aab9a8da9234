#include "train/optimizer.hpp"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <memory>

#include "core/error.hpp"
#include "support/deterministic_fill.hpp"
#include "train/ema.hpp"

namespace astroclip::train {
namespace {

std::vector<Parameter> three_parameters()
{
    std::vector<Parameter> parameters{
        {.name = "a", .tensor = test::fill_tensor(0, {4, 3}), .part = "left"},
        {.name = "b",
         .tensor = test::fill_tensor(1, {5}),
         .learning_rate_scale = 0.5,
         .weight_decay_scale = 0.0,
         .clip_group = "head",
         .part = "right"},
        {.name = "c", .tensor = test::fill_tensor(2, {2, 2}), .last_layer = true}};
    for (auto& parameter : parameters) {
        parameter.tensor.requires_grad_(true);
    }
    return parameters;
}

void set_gradients(std::vector<Parameter>& parameters, std::uint64_t step)
{
    for (std::size_t i = 0; i < parameters.size(); ++i) {
        auto& tensor = parameters[i].tensor;
        tensor.mutable_grad() = test::fill_tensor(10 * (step + 1) + i, tensor.sizes());
    }
}

const AdamW::Betas betas{0.9, 0.95, 1e-8};

TEST(AdamW, IsTheFormulaWithEachParametersRates)
{
    auto parameters = three_parameters();
    AdamW optimizer(parameters, betas);
    const Rates rates{1e-2, 3e-3, 0.1};
    const double learning_rates[] = {1e-2, 0.5e-2, 3e-3}, decays[] = {0.1, 0.0, 0.1};
    std::vector<at::Tensor> expected, mean, square;
    for (const auto& parameter : parameters) {
        expected.push_back(parameter.tensor.detach().to(at::kDouble).clone());
        mean.push_back(at::zeros_like(expected.back()));
        square.push_back(at::zeros_like(expected.back()));
    }
    for (std::uint64_t step = 0; step < 5; ++step) {
        set_gradients(parameters, step);
        optimizer.step(rates);
        for (std::size_t i = 0; i < parameters.size(); ++i) {
            const auto gradient = parameters[i].tensor.grad().to(at::kDouble);
            const auto t = static_cast<double>(step + 1);
            mean[i] = 0.9 * mean[i] + 0.1 * gradient;
            square[i] = 0.95 * square[i] + 0.05 * gradient.square();
            const auto direction =
                mean[i] / (1 - std::pow(0.9, t)) / ((square[i] / (1 - std::pow(0.95, t))).sqrt() + 1e-8);
            expected[i] = expected[i] * (1 - learning_rates[i] * decays[i]) - learning_rates[i] * direction;
        }
    }
    for (std::size_t i = 0; i < parameters.size(); ++i) {
        // float32 rounding of five steps on values of order 1
        EXPECT_LT((parameters[i].tensor.detach() - expected[i]).abs().max().item<double>(), 1e-6)
            << parameters[i].name;
    }
}

TEST(Sgd, IsTheFormulaWithEachParametersRatesAndGoesOnFromItsState)
{
    auto parameters = three_parameters();
    auto optimizer = std::make_unique<Sgd>(parameters, 0.9);
    const Rates rates{1e-2, 3e-3, 0.1};
    const double learning_rates[] = {1e-2, 0.5e-2, 3e-3}, decays[] = {0.1, 0.0, 0.1};
    std::vector<at::Tensor> expected, velocity;
    for (const auto& parameter : parameters) {
        expected.push_back(parameter.tensor.detach().to(at::kDouble).clone());
        velocity.push_back(at::zeros_like(expected.back()));
    }
    for (std::uint64_t step = 0; step < 4; ++step) {
        set_gradients(parameters, step);
        if (step == 2) {
            const auto state = optimizer->state();
            optimizer = std::make_unique<Sgd>(parameters, 0.9);
            optimizer->load_state(state);
        }
        optimizer->step(rates);
        for (std::size_t i = 0; i < parameters.size(); ++i) {
            velocity[i] =
                0.9 * velocity[i] + parameters[i].tensor.grad().to(at::kDouble) + decays[i] * expected[i];
            expected[i] = expected[i] - learning_rates[i] * velocity[i];
            EXPECT_TRUE(parameters[i].tensor.detach().to(at::kDouble).allclose(expected[i], 1e-6, 1e-7)) << i;
        }
    }
    EXPECT_THROW(optimizer->load_state({}), DataError);
}

TEST(AdamW, GoesOnWithTheSameBitsFromItsState)
{
    auto whole = three_parameters(), resumed = three_parameters();
    AdamW first(whole, betas), before(resumed, betas);
    for (std::uint64_t step = 0; step < 6; ++step) {
        set_gradients(whole, step);
        first.step({1e-2, 1e-2, 0.1});
    }
    for (std::uint64_t step = 0; step < 3; ++step) {
        set_gradients(resumed, step);
        before.step({1e-2, 1e-2, 0.1});
    }
    AdamW after(resumed, betas);
    after.load_state(before.state());
    for (std::uint64_t step = 3; step < 6; ++step) {
        set_gradients(resumed, step);
        after.step({1e-2, 1e-2, 0.1});
    }
    for (std::size_t i = 0; i < whole.size(); ++i) {
        EXPECT_TRUE(whole[i].tensor.equal(resumed[i].tensor)) << whole[i].name;
    }
}

TEST(AdamW, RefusesAStateThatIsNotItsOwn)
{
    AdamW optimizer(three_parameters(), betas);
    auto state = optimizer.state();
    state.erase("a.step");
    EXPECT_THROW(optimizer.load_state(state), DataError);
    state = optimizer.state();
    state["a.exp_avg"] = at::zeros({2});
    EXPECT_THROW(optimizer.load_state(state), DataError);
}

TEST(AdamW, StepsAParameterWithoutGradientAsIfItWereZero)
{
    auto parameters = three_parameters();
    AdamW optimizer(parameters, betas);
    const auto before = parameters[0].tensor.detach().clone();
    optimizer.step({1e-2, 1e-2, 0.1});
    EXPECT_TRUE(parameters[0].tensor.detach().allclose(before * (1 - 1e-3)));
}

TEST(ClipGradients, ScalesEachGroupByItselfToTheLargestNorm)
{
    auto parameters = three_parameters();
    for (auto& parameter : parameters) {
        parameter.tensor.mutable_grad() = at::ones_like(parameter.tensor.detach());
    }
    const auto norms = clip_gradients(parameters, 3.0);
    EXPECT_NEAR(norms.at(""), 4.0, 1e-6);  // 12 + 4 ones
    EXPECT_NEAR(norms.at("head"), std::sqrt(5.0), 1e-6);
    EXPECT_NEAR(norms.at("left"), std::sqrt(12.0), 1e-6);  // told, but clipped with its group
    EXPECT_NEAR(norms.at("right"), std::sqrt(5.0), 1e-6);
    EXPECT_NEAR(parameters[0].tensor.grad()[0][0].item<double>(), 0.75, 1e-6);
    EXPECT_EQ(parameters[1].tensor.grad()[0].item<double>(), 1.0);
}

TEST(Ema, MovesTheTeacherTowardsTheStudent)
{
    const auto teacher = at::full({3}, 2.0), student = at::full({3}, 4.0);
    ema({teacher}, {student}, 0.75);
    EXPECT_TRUE(teacher.equal(at::full({3}, 2.5)));
}

}  // namespace
}  // namespace astroclip::train
