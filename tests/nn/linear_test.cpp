#include "nn/linear.hpp"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include "nn/cpu_linear.hpp"
#include "train/precision.hpp"

namespace astroclip::nn {
namespace {

struct Case {
    std::int64_t rows, in, out;
};
// Whole and broken tiles, sums longer than a block, more and fewer columns than rows; too few rows and a
// width that is not a multiple of 64 for LibTorch.
const Case cases[] = {{128, 64, 64},    {145, 192, 576}, {75, 1088, 64},
                      {1030, 128, 192}, {40, 64, 64},    {90, 48, 80}};

double relative_error(const at::Tensor& found, const at::Tensor& expected)
{
    return ((found.to(at::kDouble) - expected).norm() / expected.norm()).item<double>();
}

struct Layer {
    explicit Layer(const Case& c)
        : x(at::randn({c.rows, c.in})),
          weight(at::randn({c.out, c.in}) / 8),
          bias(at::randn({c.out})),
          scale(at::randn({c.out})),
          residual(at::randn({c.rows, c.out}))
    {
    }
    // The same numbers in another type, as leaves.
    Layer as(at::ScalarType type) const
    {
        auto other = *this;
        for (auto* each : other.all()) *each = each->detach().to(type, false, true).requires_grad_();
        return other;
    }
    std::vector<at::Tensor*> all() { return {&x, &weight, &bias, &scale, &residual}; }

    at::Tensor x, weight, bias, scale, residual;
};

enum class Kind { plain, gelu, scaled, branch };

at::Tensor run(const Layer& l, Kind kind)
{
    switch (kind) {
        case Kind::plain:
            return linear(l.x, l.weight, l.bias);
        case Kind::gelu:
            return linear_gelu(l.x, l.weight, l.bias);
        case Kind::scaled:
            return linear_branch(l.x, l.weight, l.bias, l.scale, {});
        default:
            return linear_branch(l.x, l.weight, l.bias, l.scale, l.residual);
    }
}

at::Tensor by_definition(const Layer& l, Kind kind)
{
    const auto y = l.x.matmul(l.weight.t()) + l.bias;
    if (kind == Kind::plain) return y;
    if (kind == Kind::gelu) return y * 0.5 * (1 + at::erf(y / std::sqrt(2.0)));
    return kind == Kind::scaled ? y * l.scale : l.residual + y * l.scale;
}

class Linear : public testing::TestWithParam<std::string> {};

TEST_P(Linear, AndItsGradientsAreThoseOfTheDefinition)
{
    // bfloat16: 2^-9 of each factor and each result.
    const double tolerance = GetParam() == "fp32" ? 2e-6 : 8e-3;
    at::manual_seed(1);
    for (const auto& c : cases) {
        const Layer numbers(c);
        const auto weight = at::randn({c.rows, c.out});
        for (const auto kind : {Kind::plain, Kind::gelu, Kind::scaled, Kind::branch}) {
            auto exact = numbers.as(at::kDouble), ours = numbers.as(at::kFloat);
            const auto expected = by_definition(exact, kind);
            expected.backward(weight.to(at::kDouble));
            at::Tensor found;
            {
                const train::Autocast autocast(GetParam(), at::kCPU);
                found = run(ours, kind);
            }
            found.backward(weight.to(found.scalar_type()));
            const auto where = testing::Message() << c.in << " to " << c.out << " kind " << int(kind);
            EXPECT_LT(relative_error(found.detach(), expected.detach()), tolerance) << where;
            for (std::size_t i = 0; i < ours.all().size(); ++i) {
                const auto gradient = exact.all()[i]->grad();
                if (!gradient.defined()) continue;
                EXPECT_LT(relative_error(ours.all()[i]->grad(), gradient), tolerance) << where << " of " << i;
            }
        }
    }
}

TEST_P(Linear, HasTheSameBitsOnAnyNumberOfThreadsAndInAnyBatch)
{
    at::manual_seed(2);
    const Layer numbers({300, 128, 192});
    if (!has_cpu_linear(numbers.x, numbers.weight)) GTEST_SKIP() << "LibTorch promises no equal bits";
    const train::Autocast autocast(GetParam(), at::kCPU);
    std::vector<at::Tensor> outputs, gradients;
    for (const int threads : {1, 2, 3}) {
        at::set_num_threads(threads);
        const auto layer = numbers.as(at::kFloat);
        outputs.push_back(run(layer, Kind::branch));
        outputs.back().square().sum().backward();
        gradients.push_back(layer.weight.grad());
    }
    at::set_num_threads(1);
    EXPECT_TRUE(outputs[1].equal(outputs[0]) && outputs[2].equal(outputs[0]));
    EXPECT_TRUE(gradients[1].equal(gradients[0]) && gradients[2].equal(gradients[0]));
    auto part = numbers;
    part.x = part.x.narrow(0, 37, 100);
    part.residual = part.residual.narrow(0, 37, 100);
    EXPECT_TRUE(run(part, Kind::branch).equal(outputs[0].narrow(0, 37, 100)));
}

TEST_P(Linear, OfPartOfTheWeightsIsPartOfTheWhole)
{
    at::manual_seed(3);
    const Layer l({100, 64, 192});
    if (!has_cpu_linear(l.x, l.weight)) GTEST_SKIP() << "LibTorch promises no equal bits";
    const train::Autocast autocast(GetParam(), at::kCPU);
    const auto whole = linear(l.x, l.weight, l.bias);
    const auto part = linear(l.x, l.weight.narrow(0, 64, 128), l.bias.narrow(0, 64, 128));
    EXPECT_TRUE(part.equal(whole.narrow(1, 64, 128)));
}

TEST_P(Linear, OfAFrozenLayerHasTheGradientOfItsInputAlone)
{
    const Layer numbers({100, 64, 64});
    auto l = numbers.as(at::kFloat);
    for (auto* each : {&l.weight, &l.bias, &l.scale}) *each = each->detach();
    const train::Autocast autocast(GetParam(), at::kCPU);
    run(l, Kind::branch).sum().backward();
    EXPECT_TRUE(l.x.grad().defined() && l.residual.grad().equal(at::ones({100, 64})));
    EXPECT_FALSE(l.weight.grad().defined());
}

TEST_P(Linear, OfWhichOnlyBiasOrScaleIsTrainedHasItsGradient)
{
    const Layer numbers({100, 64, 64});
    const train::Autocast autocast(GetParam(), at::kCPU);
    auto whole = numbers.as(at::kFloat);
    run(whole, Kind::branch).square().sum().backward();
    for (const auto trained : {&Layer::bias, &Layer::scale}) {
        auto l = numbers.as(at::kFloat);
        for (auto* each : l.all()) *each = each->detach();
        (l.*trained).requires_grad_();
        run(l, Kind::branch).square().sum().backward();
        EXPECT_TRUE((l.*trained).grad().equal((whole.*trained).grad()));
        EXPECT_FALSE(l.weight.grad().defined());
    }
}

TEST_P(Linear, RefusesWhatDoesNotFit)
{
    const Layer l({100, 64, 128});
    const train::Autocast autocast(GetParam(), at::kCPU);
    EXPECT_THROW(linear(at::randn({100, 128}), l.weight, l.bias), c10::Error);
    EXPECT_THROW(linear(at::randn({200, 32}), l.weight, l.bias), c10::Error);
    EXPECT_THROW(linear(l.x, l.weight, at::randn({64})), c10::Error);
    if (GetParam() == "fp32") {
        EXPECT_THROW(linear(l.x.to(at::kBFloat16), l.weight, l.bias), c10::Error);
    }
    const auto one = at::randn({128});  // a residual for all rows
    const auto found = linear_branch(l.x, l.weight, l.bias, l.scale, one);
    EXPECT_LT(relative_error(found, one + l.scale * at::linear(l.x, l.weight, l.bias)), 1e-2);
}

// What is not finite must not be lost, or training would go on without a word.
TEST_P(Linear, KeepsWhatIsNotANumber)
{
    const Layer numbers({100, 64, 64});
    for (const auto kind : {Kind::plain, Kind::gelu, Kind::branch}) {
        auto l = numbers.as(at::kFloat);
        l.x.detach()[3][5] = std::nan("");
        const train::Autocast autocast(GetParam(), at::kCPU);
        const auto found = run(l, kind);
        found.sum().backward();
        EXPECT_TRUE(found[3].isnan().all().item<bool>());
        EXPECT_TRUE(l.weight.grad().isnan().any().item<bool>());
    }
}

INSTANTIATE_TEST_SUITE_P(Of, Linear, testing::Values("fp32", "bf16"),
                         [](const auto& precision) { return precision.param; });

}  // namespace
}  // namespace astroclip::nn
