#include "nn/dino_head.hpp"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "nn/vision_transformer.hpp"
#include "support/fill_module.hpp"

namespace astroclip::nn {
namespace {

const DinoHeadConfig tiny_config{.hidden = 64, .bottleneck = 16, .prototypes = 32};

TEST(DinoHead, GivesThePublishedCheckValues)
{
    VisionTransformer vit(ViTConfig{.width = 48, .depth = 4, .heads = 3, .block_chunks = 2});
    DinoHead head(48, tiny_config);
    test::fill_module(*vit);
    test::fill_module(*head);
    const auto logits = head->forward(vit->forward(test::check_images()));
    test::expect_near(logits, {0.26334, -0.37532, 0.07872}, -0.03038, 2.773022);
}

TEST(DinoHead, HasThePublishedNames)
{
    const auto state = published_state(*DinoHead(48, tiny_config));
    const std::vector<std::string> expected = {"mlp.0.weight",        "mlp.0.bias",         "mlp.2.weight",
                                               "mlp.2.bias",          "mlp.4.weight",       "mlp.4.bias",
                                               "last_layer.weight_g", "last_layer.weight_v"};
    ASSERT_EQ(state.size(), expected.size());
    for (std::size_t i = 0; i < state.size(); ++i) EXPECT_EQ(state[i].first, expected[i]);
}

TEST(DinoHead, OfOneLayerHasNoNumberInItsNames)
{
    auto config = tiny_config;
    config.layers = 1;
    const auto state = published_state(*DinoHead(48, config));
    ASSERT_EQ(state.size(), 4u);
    EXPECT_EQ(state[0].first, "mlp.weight");
    EXPECT_EQ(state[0].second.sizes(), at::IntArrayRef({16, 48}));
}

// The inputs of the prototypes are unit vectors, so no logit is larger than the norm of its row of weights.
TEST(DinoHead, IsBoundedByTheNormsOfThePrototypes)
{
    DinoHead head(48, tiny_config);
    initialise(*head, 2);
    const auto logits = head->forward(100 * test::fill_tensor(1, {9, 48}));
    EXPECT_LE(logits.abs().max().item<double>(), 1 + 1e-5);
    EXPECT_FALSE(head->forward(at::zeros({1, 48})).isnan().any().item<bool>());
}

}  // namespace
}  // namespace astroclip::nn
