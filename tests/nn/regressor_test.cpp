#include "nn/regressor.hpp"

#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>

#include "core/error.hpp"
#include "support/deterministic_fill.hpp"

namespace astroclip::nn {
namespace {

TEST(Regressor, OfImagesIsTheResNet18OfTorchvisionWithAnOutputForEachTarget)
{
    const Regressor model(RegressorConfig{.modality = "image", .targets = {"redshift"}});
    std::int64_t numbers = 0;
    for (const auto& parameter : model->parameters()) numbers += parameter.numel();
    EXPECT_EQ(numbers, 11'689'512 - 513'000 + 513);  // torchvision's, whose 1000 classes become one number
    EXPECT_EQ(model->named_parameters()["model.resnet.fc.weight"].sizes(), at::IntArrayRef({1, 512}));
    EXPECT_TRUE(model->named_parameters().contains("model.resnet.layer4.1.bn2.bias"));
    EXPECT_EQ(model->forward(at::zeros({2, 3, 40, 40})).sizes(), at::IntArrayRef({2, 1}));
}

TEST(Regressor, ComesBackFromItsFileWithTheScaleOfItsTargets)
{
    const auto path =
        (std::filesystem::temp_directory_path() / ("regressor-" + std::to_string(getpid()))).string();
    const RegressorConfig config{.modality = "spectrum", .targets = {"LOG_MSTAR", "redshift"}};
    Regressor model(config);
    initialise(*model, 3, "");
    model->eval();
    model->target_mean.copy_(at::tensor({10.5, 0.2}));
    model->target_std.copy_(at::tensor({0.5, 0.1}));
    save_weights(path, published_state(*model), describe(config));
    const auto read = load_regressor(WeightsFile(path));
    std::filesystem::remove(path);

    EXPECT_EQ(read->config().modality, "spectrum");
    EXPECT_EQ(read->config().targets, config.targets);
    EXPECT_TRUE(read->named_parameters().contains("model.conv1.0.weight"));
    const auto spectra = test::fill_tensor(1, {3, 700});
    const auto scaled = model->forward(spectra).detach().to(at::kDouble);
    const auto expected = scaled * at::tensor({0.5, 0.1}, at::kDouble) + at::tensor({10.5, 0.2}, at::kDouble);
    EXPECT_TRUE(read->predict(spectra).allclose(expected, 0, 1e-12));
}

TEST(Regressor, OfNothingOrOfAnotherModelIsRefused)
{
    EXPECT_THROW(Regressor(RegressorConfig{.modality = "image", .targets = {}}), ConfigError);
    EXPECT_THROW(Regressor(RegressorConfig{.modality = "sound", .targets = {"redshift"}}), ConfigError);
    const auto path =
        (std::filesystem::temp_directory_path() / ("no-regressor-" + std::to_string(getpid()))).string();
    save_weights(path, {{"a", at::zeros({1})}}, {{"model", "resnet18"}});
    EXPECT_THROW(load_regressor(WeightsFile(path)), DataError);
    std::filesystem::remove(path);
}

}  // namespace
}  // namespace astroclip::nn
