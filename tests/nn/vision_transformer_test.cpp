#include "nn/vision_transformer.hpp"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <set>

#include "core/error.hpp"
#include "nn/attention.hpp"
#include "support/fill_module.hpp"

namespace astroclip::nn {
namespace {

const ViTConfig tiny_config{.width = 48, .depth = 4, .heads = 3, .block_chunks = 2};

VisionTransformer tiny()
{
    VisionTransformer model(tiny_config);
    test::fill_module(*model);
    return model;
}

at::Tensor corner(const at::Tensor& images) { return images.narrow(2, 0, 60).narrow(3, 0, 60); }

TEST(VisionTransformer, GivesThePublishedCheckValues)
{
    auto model = tiny();
    const auto images = test::check_images();
    const auto cls = model->forward(images);
    test::expect_near(cls[0], {0.25375, -1.69169, 0.88684}, -0.63172);
    test::expect_near(cls[1], {0.29579, -1.66011, 0.82703}, -0.58672);

    auto mask = at::zeros({2, 144}, at::kBool);
    mask.narrow(1, 20, 30).fill_(true);
    test::expect_near(model->forward_features(images, mask).cls[0], {0.04792, -1.54748, 0.69201}, -0.57241);
    test::expect_near(model->forward(corner(images))[0], {0.20429, -1.65629, 0.77514}, -0.75177);
    test::expect_near(model->tokens_without_position(images)[0], {1.76807, -0.33864, 0.66541}, -1.48930,
                      83.84275);
}

// The weights that are told must be those by which the block mixes its values.
TEST(VisionTransformer, TellsHowMuchTheClsTokenLooksAtEachPatch)
{
    auto config = tiny_config;
    config.depth = 1;
    config.block_chunks = 0;
    VisionTransformer model(config);
    test::fill_module(*model);
    const auto images = test::check_images();
    const auto told = model->cls_attention(images);
    ASSERT_EQ(told.sizes(), (at::IntArrayRef{2, 3, 144}));

    const auto of_block = model->named_parameters();
    const auto get = [&](const char* name) { return of_block["blocks.0." + std::string(name)].detach(); };
    const auto normed =
        at::layer_norm(model->input_tokens(images), {48}, get("norm1.weight"), get("norm1.bias"), 1e-6);
    const auto qkv = at::linear(normed, get("attn.qkv.weight"), get("attn.qkv.bias"));
    const auto values = qkv.narrow(2, 96, 48).unflatten(2, {3, 16}).transpose(1, 2);  // [2, heads, 145, 16]
    const auto of_cls = 1 - told.sum(2, true);
    const auto mixed = at::cat({of_cls, told}, 2).unsqueeze(2).matmul(values).squeeze(2).flatten(1);
    EXPECT_TRUE(mixed.allclose(self_attention(qkv, 3).select(1, 0), 1e-4, 1e-5));
}

TEST(VisionTransformer, HasThePublishedNamesInTheirOrder)
{
    const auto state = published_state(*tiny());
    ASSERT_EQ(state.size(), 63u);
    EXPECT_EQ(state[0].first, "cls_token");
    EXPECT_EQ(state[2].first, "mask_token");
    EXPECT_EQ(state[3].first, "patch_embed.proj.weight");
    EXPECT_EQ(state[7].first, "blocks.0.0.attn.qkv.weight");
    EXPECT_EQ(state[11].first, "blocks.0.0.ls1.gamma");
    EXPECT_EQ(state[5 + 3 * 14].first, "blocks.1.3.norm1.weight");
    EXPECT_EQ(state[62].first, "norm.bias");
    std::int64_t parameters = 0;
    for (const auto& item : state) parameters += item.second.numel();
    EXPECT_EQ(parameters, 141'408);
}

TEST(VisionTransformer, NamesBlocksWithoutChunksIfAsked)
{
    auto config = tiny_config;
    config.block_chunks = 0;
    const auto state = published_state(*VisionTransformer(config));
    EXPECT_EQ(state[5].first, "blocks.0.norm1.weight");
}

// Position tables of other grids than the trained one, and not square.
TEST(VisionTransformer, KeepsTheClsPositionForEveryGrid)
{
    auto model = tiny();
    const auto table = model->position_table(5, 7);
    ASSERT_EQ(table.sizes(), at::IntArrayRef({1, 36, 48}));
    EXPECT_TRUE(table.select(1, 0).equal(model->position_table(12, 12).select(1, 0)));
    EXPECT_EQ(model->forward_features(test::check_images().narrow(2, 0, 60)).patches.size(1), 60);
}

TEST(VisionTransformer, RefusesImagesThatAreNotWholePatches)
{
    EXPECT_THROW(tiny()->forward(at::zeros({1, 3, 144, 140})), DataError);
    EXPECT_THROW(tiny()->forward(at::zeros({1, 4, 144, 144})), DataError);
}

// A sample that every subset leaves out passes as if there were no blocks; one that every
// subset keeps is scaled.
TEST(StochasticDepth, ActsOnTheChosenRowsOnly)
{
    auto model = tiny();
    const auto images = test::check_images();
    StochasticDepth depth(8, Subset{at::tensor({1}, at::kLong), 2.0});
    const auto tokens = model->input_tokens(images);
    const auto cls = model->forward_features(images, {}, depth).cls;
    const auto norm = [&](const at::Tensor& x) {
        const auto p = model->named_parameters();
        return at::layer_norm(x, {48}, p["norm.weight"], p["norm.bias"], 1e-6);
    };
    EXPECT_TRUE(cls[0].allclose(norm(tokens)[0][0]));

    auto scaled = tiny();  // the same as twice the LayerScale without subsets
    {
        const at::NoGradGuard no_grad;
        for (auto& item : scaled->named_parameters()) {
            if (item.key().ends_with("gamma")) item.value().mul_(2);
        }
    }
    EXPECT_TRUE(cls[1].allclose(scaled->forward(images)[1], 1e-4, 1e-5));
}

TEST(StochasticDepth, IsDrawnForFixedGroupsWhateverRankOwnsThem)
{
    auto config = tiny_config;
    config.drop_path_rate = 0.3;
    const auto whole =
        draw_stochastic_depth(config, {.views = 2, .groups = 3, .group_images = 5}, 1, "depth", 9);
    ASSERT_EQ(whole.size(), 8u);
    EXPECT_EQ(whole[0].rows.size(0), 3 * 7);  // int(10·0.7) of each group of 10
    EXPECT_DOUBLE_EQ(whole[0].scale, 10.0 / 7);
    const auto last = draw_stochastic_depth(
        config, {.views = 2, .groups = 1, .group_images = 5, .first_group = 2}, 1, "depth", 9);
    for (std::size_t branch = 0; branch < whole.size(); ++branch) {
        std::set<std::int64_t> distinct;
        for (std::int64_t i = 0; i < 21; ++i) distinct.insert(whole[branch].rows[i].item<std::int64_t>());
        EXPECT_EQ(distinct.size(), 21u);
        for (std::int64_t i = 0; i < 7; ++i) {
            // Row v·5 + i of the group alone is row v·15 + 10 + i of the whole batch.
            const auto row = last[branch].rows[i].item<std::int64_t>();
            EXPECT_EQ(whole[branch].rows[14 + i].item<std::int64_t>(), row / 5 * 15 + 10 + row % 5);
        }
    }
    EXPECT_FALSE(whole[0].rows.equal(whole[1].rows));
    config.drop_path_rate = 0;
    EXPECT_TRUE(draw_stochastic_depth(config, {}, 1, "depth", 9).empty());
}

}  // namespace
}  // namespace astroclip::nn
