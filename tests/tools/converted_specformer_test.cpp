// The SpecFormer that tools/convert_checkpoint made of a Lightning checkpoint of the published size, with
// made-up values: the numbers of the published code with the same values.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "data/spectrum_masks.hpp"
#include "data/spectrum_tokens.hpp"
#include "nn/encoder.hpp"
#include "ssl/masked_spectrum_loss.hpp"
#include "support/fill_module.hpp"

namespace astroclip {
namespace {

const std::string path = CONVERTED "/model.safetensors";

// The settings that the file's metadata give, as embed and align read them.
at::Tensor check_tokens()
{
    const auto config = data::spectrum_tokens_config(nn::WeightsFile(path).metadata(), "");
    return data::spectrum_tokens(test::check_spectra(7781), config);
}

TEST(ConvertedSpecFormer, GivesTheCheckValues)
{
    const at::NoGradGuard no_grad;
    const auto specformer = nn::load_specformer(path);  // strictly
    const auto embedding = specformer->forward(check_tokens());
    test::expect_near(embedding[0], {0.74453, -1.09469, 0.30726}, 0.69626, 776.4733);
    test::expect_near(embedding[1], {0.23392, -0.49764, -0.25266}, 0.47998, 776.4562);
    test::expect_near(specformer->predict_tokens(embedding)[0], {-0.26906, -0.71890, -0.05677}, -0.96942,
                      112.6553);
}

TEST(ConvertedSpecFormer, GivesTheLossOfThePublishedCode)
{
    const at::NoGradGuard no_grad;
    const auto tokens = check_tokens();
    const auto starts = at::tensor({10, 100}, at::kLong).view({2, 1});
    const auto masked = data::mask_tokens(tokens, starts, 50);
    const auto sums = ssl::masked_sums(nn::load_specformer(path)->reconstruct(masked), tokens, masked);
    EXPECT_EQ(sums.count.item<double>(), 2000);
    EXPECT_NEAR((sums.squared_error / sums.count).item<double>(), 1.4931203, 2e-4 * 1.4931203);
}

}  // namespace
}  // namespace astroclip
