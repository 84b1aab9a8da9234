#include "nn/convolution_attention.hpp"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "core/error.hpp"
#include "support/fill_module.hpp"

namespace astroclip::nn {
namespace {

// The deterministic fill, whose vectors are gains near 1; slopes near 1 would leave nothing of PReLU to see.
ConvolutionAttention filled(std::int64_t outputs)
{
    ConvolutionAttention model(outputs);
    test::fill_module(*model);
    const at::NoGradGuard no_grad;
    for (auto& [name, tensor] : published_state(*model)) {
        if (tensor.dim() == 1 && name.ends_with("weight")) at::Tensor(tensor).mul_(0.25);
    }
    return model;
}

TEST(ConvolutionAttention, HasTheNamesAndSizesOfTheBaseline)
{
    const ConvolutionAttention model(1);
    std::vector<std::string> names;
    std::int64_t numbers = 0;
    for (const auto& parameter : model->named_parameters()) {
        names.push_back(parameter.key());
        numbers += parameter.value().numel();
    }
    EXPECT_EQ(names,
              (std::vector<std::string>{
                  "conv1.0.weight", "conv1.0.bias",   "conv1.2.weight", "conv2.0.weight", "conv2.0.bias",
                  "conv2.2.weight", "conv3.0.weight", "conv3.0.bias",   "conv3.2.weight", "conv4.0.weight",
                  "conv4.0.bias",   "conv4.2.weight", "mlp.0.weight",   "mlp.0.bias",     "mlp.1.weight",
                  "mlp.3.weight",   "mlp.3.bias",     "mlp.4.weight",   "mlp.6.weight",   "mlp.6.bias"}));
    EXPECT_EQ(numbers, 28'761);
}

// The expected numbers are those of the same network of PyTorch's own layers (2.11) in float64.
TEST(ConvolutionAttention, GivesTheOutputsAndGradientsOfTheSameLayersInPyTorch)
{
    const auto model = filled(5);
    const auto out = model->forward(test::check_spectra(7781));
    test::expect_near(out[0], {-0.148046, 0.091904, -0.274597}, 0.152481);
    test::expect_near(out[1], {-0.113094, 0.036672, -0.149580}, 0.086291);
    out.square().sum().backward();
    const auto parameters = model->named_parameters();
    const auto norm = [&](const char* name) { return parameters[name].grad().norm().item<double>(); };
    EXPECT_NEAR(norm("conv1.0.weight"), 0.731948, 1e-3);
    EXPECT_NEAR(norm("conv2.2.weight"), 0.0121483, 2e-5);
    EXPECT_NEAR(norm("mlp.4.weight"), 0.114301, 1e-4);
    // A bias before a normalisation moves nothing; what is left is rounding.
    EXPECT_LT(norm("conv4.0.bias"), 1e-6);
}

TEST(ConvolutionAttention, SeesEachSpectrumByItselfAndNotItsScale)
{
    const at::NoGradGuard no_grad;
    const auto model = filled(2);
    const auto spectra = 100 * test::check_spectra(900);  // so that eps is nothing beside the variance
    const auto both = model->forward(spectra);
    EXPECT_TRUE(model->forward(spectra.narrow(0, 1, 1)).allclose(both.narrow(0, 1, 1), 1e-5, 1e-6));
    EXPECT_TRUE(model->forward(7 * spectra).allclose(both, 1e-4, 1e-5));
    EXPECT_THROW(model->forward(spectra[0]), DataError);
}

}  // namespace
}  // namespace astroclip::nn
