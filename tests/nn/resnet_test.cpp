#include "nn/resnet.hpp"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "core/error.hpp"
#include "support/fill_module.hpp"

namespace astroclip::nn {
namespace {

TEST(ResNet50, HasTheNamesAndSizesOfTorchvision)
{
    const ResNet model(ResNetConfig{});
    const auto state = published_state(*model);
    ASSERT_EQ(state.size(), 322u);
    const std::vector<std::string> first = {
        "conv1.weight",          "bn1.weight",         "bn1.bias",
        "bn1.running_mean",      "bn1.running_var",    "bn1.num_batches_tracked",
        "layer1.0.conv1.weight", "layer1.0.bn1.weight"};
    for (std::size_t i = 0; i < first.size(); ++i) EXPECT_EQ(state[i].first, first[i]);
    EXPECT_EQ(state.back().first, "fc.2.bias");
    std::int64_t numbers = 0;
    for (const auto& parameter : model->parameters()) numbers += parameter.numel();
    EXPECT_EQ(numbers, 27'966'656);
    const auto parameters = model->named_parameters();
    EXPECT_EQ(parameters["layer2.0.conv2.weight"].sizes(), at::IntArrayRef({128, 128, 3, 3}));
    EXPECT_EQ(parameters["layer4.0.downsample.0.weight"].sizes(), at::IntArrayRef({2048, 1024, 1, 1}));
    EXPECT_FALSE(parameters.contains("layer4.1.downsample.0.weight"));
}

TEST(ResNet50, GivesThePublishedCheckValues)
{
    const at::NoGradGuard no_grad;
    ResNet model(ResNetConfig{});
    test::fill_module(*model);
    model->eval();
    const auto images = test::check_images().narrow(2, 0, 96).narrow(3, 0, 96);
    const auto pooled = model->features(images);
    test::expect_near(pooled[0], {1.33116, 0.13572, 1.22275}, 0.46558, 22.69443);
    const auto projected = model->project(pooled);
    test::expect_near(projected[0], {0.13928, 0.07069, -0.28555}, -0.17652);
    test::expect_near(projected[1], {0.17257, 0.06220, -0.31163}, -0.19582);

    model->train();
    const auto trained = model->forward(images)[0];
    // The last stage's statistics are of 18 values, which enlarges rounding: 2e-4 of the largest output.
    const auto published = at::tensor({-0.25095, -0.50079, -0.54981, 0.09001}, at::kFloat);
    const auto ours = at::cat({trained.narrow(0, 0, 3), trained.narrow(0, 127, 1)});
    EXPECT_TRUE(ours.allclose(published, 0, 2e-4 * trained.abs().max().item<double>())) << ours;
    const auto mean = model->named_buffers()["bn1.running_mean"];
    const auto expected = at::tensor({0.081965, 0.019884, 0.002899}, at::kFloat);
    EXPECT_TRUE(mean.narrow(0, 0, 3).allclose(expected, 0, 1e-6));
    EXPECT_EQ(model->named_buffers()["bn1.num_batches_tracked"].item<std::int64_t>(), 1);
}

TEST(ResNet18, HasBasicBlocksAndNoShortcutConvolutionWhereTheShapeStays)
{
    const ResNet model(ResNetConfig{.layers = 18});
    EXPECT_EQ(model->width(), 512);
    const auto parameters = model->named_parameters();
    EXPECT_TRUE(parameters.contains("layer1.1.conv2.weight"));
    EXPECT_FALSE(parameters.contains("layer1.0.conv3.weight"));
    EXPECT_FALSE(parameters.contains("layer1.0.downsample.0.weight"));
    EXPECT_TRUE(parameters.contains("layer2.0.downsample.1.bias"));
}

TEST(ResNet18, EvaluatesEachImageByItself)
{
    const at::NoGradGuard no_grad;
    ResNet model(ResNetConfig{.layers = 18});
    test::fill_module(*model);
    model->eval();
    const auto images = test::fill_tensor(1, {3, 3, 64, 64});
    const auto together = model->forward(images);
    EXPECT_TRUE(model->forward(images.narrow(0, 1, 1)).allclose(together.narrow(0, 1, 1), 1e-4, 1e-5));
    EXPECT_THROW(model->forward(images.narrow(1, 0, 2)), DataError);
    EXPECT_THROW(ResNet(ResNetConfig{.layers = 34}), ConfigError);
}

}  // namespace
}  // namespace astroclip::nn
