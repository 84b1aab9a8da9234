#include "nn/cross_attention_head.hpp"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "core/error.hpp"
#include "data/spectrum_tokens.hpp"
#include "nn/specformer.hpp"
#include "nn/vision_transformer.hpp"
#include "support/fill_module.hpp"

namespace astroclip::nn {
namespace {

const HeadConfig tiny_config{.embed_dim = 32, .attention_heads = 4};

// The parts are filled one by one, as the check values have it.
AlignmentHead filled(std::int64_t token_width, bool residual, const HeadConfig& config = tiny_config)
{
    AlignmentHead head(token_width, config, residual);
    test::fill_module(*head->cross_attention);
    test::fill_module(*head->mlp);
    return head;
}

// Multi-head attention as textbooks write it: all keys and values are computed. tokens [B, N, D] -> [B, E]
at::Tensor textbook(const torch::nn::Module& attention, const at::Tensor& tokens, std::int64_t heads)
{
    const auto p = attention.named_parameters();
    const auto width = p["query"].size(2), batch = tokens.size(0);
    std::vector<at::Tensor> weight;
    if (p.contains("multihead_attn.in_proj_weight")) {
        weight = p["multihead_attn.in_proj_weight"].chunk(3);
    } else {
        for (const std::string part : {"q", "k", "v"})
            weight.push_back(p["multihead_attn." + part + "_proj_weight"]);
    }
    const auto bias = p["multihead_attn.in_proj_bias"].chunk(3);
    const auto split = [&](const at::Tensor& x) {
        return x.view({batch, -1, heads, width / heads}).transpose(1, 2);
    };
    const auto q = split(at::linear(p["query"].expand({batch, 1, width}), weight[0], bias[0]));
    const auto k = split(at::linear(tokens, weight[1], bias[1])),
               v = split(at::linear(tokens, weight[2], bias[2]));
    const auto scores = q.matmul(k.transpose(2, 3)) / std::sqrt(double(width / heads));
    const auto mixed = at::softmax(scores, -1).matmul(v).transpose(1, 2).reshape({batch, width});
    const auto out =
        at::linear(mixed, p["multihead_attn.out_proj.weight"], p["multihead_attn.out_proj.bias"]);
    return at::layer_norm(out, {width}, p["layernorm.weight"], p["layernorm.bias"], 1e-5);
}

TEST(AlignmentHead, GivesThePublishedCheckValues)
{
    SpecFormer specformer(SpecFormerConfig{.width = 48, .layers = 2, .heads = 3, .max_tokens = 64});
    VisionTransformer vit(ViTConfig{.width = 48, .depth = 4, .heads = 3, .block_chunks = 2});
    test::fill_module(*specformer);
    test::fill_module(*vit);
    const auto spectra =
        filled(48, true)->forward(specformer->forward(data::spectrum_tokens(test::check_spectra(400))));
    const auto images = filled(48, false)->forward(vit->tokens_without_position(test::check_images()));
    test::expect_near(spectra[0], {0.66016, -0.65976, 0.75045}, 1.89202, 6.809156);
    test::expect_near(spectra[1], {0.74265, -0.92538, 0.49058}, 1.50551, 6.382794);
    test::expect_near(images[0], {-0.83618, -0.98049, 0.06347}, -0.03189, 4.312829);
    test::expect_near(images[1], {-0.87330, -0.98037, -0.00322}, 0.00117, 4.379977);
}

class WidthOfTokens : public testing::TestWithParam<int> {};
INSTANTIATE_TEST_SUITE_P(CrossAttention, WidthOfTokens,
                         testing::Values(32, 20));  // packed and separate matrices

TEST_P(WidthOfTokens, EqualsMultiHeadAttentionWithAllKeysAndValues)
{
    const auto width = GetParam();
    auto attention = filled(width, false)->cross_attention;
    attention->to(at::kDouble);  // so that 1e-12 tells a formula from rounding
    const auto tokens = test::fill_tensor(3, {5, 17, width}).to(at::kDouble);
    const auto ours = attention->forward(tokens), theirs = textbook(*attention, tokens, 4);
    EXPECT_LT((ours - theirs).abs().max().item<double>(), 1e-12);

    const auto weight = test::fill_tensor(4, {5, 32}).to(at::kDouble);
    (ours * weight).sum().backward();
    std::vector<at::Tensor> gradients;
    for (auto& parameter : attention->parameters()) gradients.push_back(parameter.grad().clone());
    attention->zero_grad();
    (theirs * weight).sum().backward();
    for (std::size_t i = 0; i < gradients.size(); ++i) {
        const auto expected = attention->parameters()[i].grad();
        EXPECT_LT((gradients[i] - expected).abs().max().item<double>(), 1e-11);
    }
}

TEST(AlignmentHead, TakesABatchOfOne)
{
    auto head = filled(48, true);
    const auto tokens = test::fill_tensor(1, {3, 10, 48});
    const auto all = head->forward(tokens), one = head->forward(tokens.narrow(0, 1, 1));
    ASSERT_EQ(one.sizes(), at::IntArrayRef({1, 32}));
    EXPECT_TRUE(one[0].allclose(all[1], 1e-5, 1e-6));
}

TEST(AlignmentHead, DropsOutOnlyWhenItIsHandedTheDraws)
{
    auto head = filled(48, false);
    const auto tokens = test::fill_tensor(1, {2, 10, 48});
    head->train();
    const auto z = head->forward(tokens);
    EXPECT_TRUE(z.equal(head->forward(tokens)));
    const Dropout dropout(1, 0, {10, 11});
    const auto dropped = head->forward(tokens, &dropout);
    EXPECT_GT(dropped.eq(0).sum().item<std::int64_t>(), 0);
    EXPECT_TRUE(dropped.equal(head->forward(tokens, &dropout)));
}

TEST(AlignmentHead, RefusesAWidthThatItsHeadsCannotShare)
{
    EXPECT_THROW(AlignmentHead(48, HeadConfig{.embed_dim = 30, .attention_heads = 4}, false), ConfigError);
}

}  // namespace
}  // namespace astroclip::nn
