#include "nn/attention.hpp"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include <cmath>

#include "nn/cpu_attention.hpp"

namespace astroclip::nn {
namespace {

struct Case {
    std::int64_t queries, keys, heads, size;
};
// Whole and broken blocks of the kernel, fewer keys than a vector, published sizes (48 and 128 columns a
// head).
const Case cases[] = {{64, 64, 2, 16}, {65, 79, 3, 48},   {300, 778, 1, 128}, {1, 145, 4, 64},
                      {130, 7, 2, 32}, {778, 778, 2, 48}, {26, 26, 3, 64},    {5, 1, 1, 16}};

// By definition, in float64. q [B, M, width], kv [B, N, 2·width].
at::Tensor expected_attention(const at::Tensor& q, const at::Tensor& kv, std::int64_t heads)
{
    const auto width = q.size(2), size = width / heads;
    const auto by_head = [&](const at::Tensor& x) { return x.unflatten(2, {heads, size}).transpose(1, 2); };
    const auto k = by_head(kv.narrow(2, 0, width)), v = by_head(kv.narrow(2, width, width));
    const auto scores = by_head(q).matmul(k.transpose(2, 3)) / std::sqrt(double(size));
    return at::softmax(scores, -1).matmul(v).transpose(1, 2).flatten(2);
}

double relative_error(const at::Tensor& found, const at::Tensor& expected)
{
    return ((found.to(at::kDouble) - expected).norm() / expected.norm()).item<double>();
}

// float32 sums of some hundred terms: 1e-6 of the norm. bfloat16 has 8 bits, so each result is off by up to
// 2^-9 = 0.002 of itself, and so are the weights within.
double tolerance(at::ScalarType type) { return type == at::kFloat ? 3e-6 : 6e-3; }

class Attention : public testing::TestWithParam<at::ScalarType> {};

TEST_P(Attention, AndItsGradientsAreThoseOfTheDefinition)
{
    const auto type = GetParam();
    at::manual_seed(1);
    for (const auto& c : cases) {
        const auto width = c.heads * c.size;
        auto q = at::randn({2, c.queries, width}).to(type).requires_grad_(),
             kv = at::randn({2, c.keys, 2 * width}).to(type).requires_grad_();
        const auto weight = at::randn({2, c.queries, width}).to(type);
        auto q64 = q.detach().to(at::kDouble).requires_grad_(),
             kv64 = kv.detach().to(at::kDouble).requires_grad_();
        const auto expected = expected_attention(q64, kv64, c.heads);
        expected.backward(weight.to(at::kDouble));

        const auto found = attention(q, kv, c.heads);
        found.backward(weight);
        EXPECT_EQ(found.scalar_type(), type);
        EXPECT_LT(relative_error(found.detach(), expected.detach()), tolerance(type)) << c.keys;
        EXPECT_LT(relative_error(kv.grad(), kv64.grad()), tolerance(type)) << c.keys;
        // With one key the weights are 1 and the query's gradient is nothing but rounding.
        if (c.keys > 1) {
            EXPECT_LT(relative_error(q.grad(), q64.grad()), tolerance(type)) << c.keys;
        }
    }
}

TEST_P(Attention, OfATokenToItsOwnSequenceIsTheSameThing)
{
    at::manual_seed(2);
    const auto qkv = at::randn({2, 90, 3 * 64}).to(GetParam());
    auto together = qkv.clone().requires_grad_(), apart = qkv.clone().requires_grad_();
    const auto found = self_attention(together, 4);
    const auto expected = attention(apart.narrow(2, 0, 64), apart.narrow(2, 64, 128), 4);
    EXPECT_TRUE(found.equal(expected));
    found.sum().backward();
    expected.sum().backward();
    EXPECT_TRUE(together.grad().equal(apart.grad()));
}

TEST_P(Attention, HasTheSameBitsOnAnyNumberOfThreadsAndInAnyBatch)
{
    at::manual_seed(3);
    const auto qkv = at::randn({5, 100, 3 * 96}).to(GetParam());
    std::vector<at::Tensor> outputs, gradients;
    for (const int threads : {1, 2, 3}) {
        at::set_num_threads(threads);
        auto x = qkv.clone().requires_grad_();
        outputs.push_back(self_attention(x, 3));
        outputs.back().square().sum().backward();
        gradients.push_back(x.grad());
    }
    at::set_num_threads(1);
    EXPECT_TRUE(outputs[1].equal(outputs[0]) && outputs[2].equal(outputs[0]));
    EXPECT_TRUE(gradients[1].equal(gradients[0]) && gradients[2].equal(gradients[0]));
    EXPECT_TRUE(self_attention(qkv.narrow(0, 3, 1), 3).equal(outputs[0].narrow(0, 3, 1)));
}

// What is not finite must not be lost, or training would go on without a word.
TEST_P(Attention, KeepsWhatIsNotANumber)
{
    at::manual_seed(4);
    for (const std::int64_t column : {0, 64, 128}) {  // of q, k, v
        auto qkv = at::randn({1, 90, 3 * 64}).to(GetParam());
        qkv[0][40][column] = std::nan("");
        qkv.requires_grad_();
        const auto found = self_attention(qkv, 4);
        found.sum().backward();
        EXPECT_TRUE(found.isnan().any().item<bool>()) << column;
        EXPECT_TRUE(qkv.grad().isnan().any().item<bool>()) << column;
    }
}

TEST_P(Attention, OfVeryLargeScoresIsThatOfTheLargest)
{
    auto qkv = at::zeros({1, 40, 3 * 16});
    qkv[0].narrow(1, 0, 16).fill_(1e4);
    qkv[0][17].narrow(0, 16, 16).fill_(1e4);
    qkv[0].narrow(1, 32, 16).copy_(at::arange(40).view({40, 1}).expand({40, 16}));
    const auto found = self_attention(qkv.to(GetParam()), 1);
    EXPECT_TRUE(found.eq(17).all().item<bool>());
}

INSTANTIATE_TEST_SUITE_P(Of, Attention, testing::Values(at::kFloat, at::kBFloat16),
                         [](const auto& type) { return type.param == at::kFloat ? "float32" : "bfloat16"; });

TEST(CausalAttention, SeesNoTokenThatComesLater)
{
    at::manual_seed(5);
    auto qkv = at::randn({1, 50, 3 * 32});
    const auto before = self_attention(qkv, 2, true);
    qkv.narrow(1, 30, 20).zero_();
    const auto after = self_attention(qkv, 2, true);
    EXPECT_TRUE(after.narrow(1, 0, 30).allclose(before.narrow(1, 0, 30), 1e-6, 1e-6));
    EXPECT_FALSE(after.narrow(1, 30, 20).allclose(before.narrow(1, 30, 20), 1e-2, 1e-2));
}

}  // namespace
}  // namespace astroclip::nn
