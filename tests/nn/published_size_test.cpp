// The published sizes, once: 371 million parameters with made-up values, against the numbers
// of the published code.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "data/spectrum_tokens.hpp"
#include "nn/encoder.hpp"
#include "ssl/info_nce.hpp"
#include "support/fill_module.hpp"
#include "support/ranks.hpp"

namespace astroclip::nn {
namespace {

std::int64_t parameters(const torch::nn::Module& module)
{
    std::int64_t count = 0;
    for (const auto& item : published_state(module)) count += item.second.numel();
    return count;
}

AlignmentHead filled_head(std::int64_t token_width, bool residual)
{
    AlignmentHead head(token_width, HeadConfig{}, residual);
    test::fill_module(*head->cross_attention);
    test::fill_module(*head->mlp);
    return head;
}

at::Tensor embedded_spectra()
{
    SpecFormer specformer(SpecFormerConfig{});
    test::fill_module(*specformer);
    return filled_head(768, true)->forward(
        specformer->forward(data::spectrum_tokens(test::check_spectra(7781))));
}

// Of the whole chain. Embeddings are good to 2e-4, and so are their cosines; the loss of two pairs less so
// than its distance to ln 2.
void expect_known_loss(const at::Tensor& images, const at::Tensor& spectra)
{
    const auto alone = test::this_rank_alone();
    EXPECT_NEAR(ssl::info_nce(alone, images, spectra, 15.5).item<double>(), 0.6909065, 2e-5);
    EXPECT_NEAR(ssl::info_nce(alone, images, spectra, 1.0).item<double>(), 0.6928465, 2e-6);
    const auto image = ssl::unit_rows(images), spectrum = ssl::unit_rows(spectra);
    EXPECT_NEAR(image[0].dot(spectrum[0]).item<double>(), 0.130225, 2e-5);
    EXPECT_NEAR(image[0].dot(image[1]).item<double>(), 0.993755, 2e-5);
    EXPECT_NEAR(spectrum[0].dot(spectrum[1]).item<double>(), 0.809577, 2e-5);
}

TEST(PublishedSize, OfTheSpectrumSideGivesTheCheckValues)
{
    const at::NoGradGuard no_grad;
    SpecFormer specformer(SpecFormerConfig{});
    test::fill_module(*specformer);
    EXPECT_EQ(parameters(*specformer), 43'177'750);
    EXPECT_EQ(published_state(*specformer).size(), 79u);

    const auto tokens = data::spectrum_tokens(test::check_spectra(7781));
    const auto embedding = specformer->forward(tokens);
    test::expect_near(embedding[0], {0.74453, -1.09469, 0.30726}, 0.69626, 776.4733);
    test::expect_near(embedding[1], {0.23392, -0.49764, -0.25266}, 0.47998, 776.4562);
    test::expect_near(specformer->predict_tokens(embedding)[0], {-0.26906, -0.71890, -0.05677}, -0.96942,
                      112.6553);

    auto head = filled_head(768, true);
    EXPECT_EQ(parameters(*head), 12'070'912);
    const auto z = head->forward(embedding);
    test::expect_near(z[0], {2.15765, -0.05870, 0.28572}, -0.23218, 38.59517);
    test::expect_near(z[1], {2.16760, 0.70525, -0.63435}, -0.26388, 39.10365);
}

TEST(PublishedSize, OfTheImageSideGivesTheCheckValues)
{
    const at::NoGradGuard no_grad;
    VisionTransformer vit(ViTConfig{});
    test::fill_module(*vit);
    EXPECT_EQ(parameters(*vit), 302'954'496);
    EXPECT_EQ(published_state(*vit).size(), 343u);

    const auto images = test::check_images(), first = images.narrow(0, 0, 1);
    auto mask = at::zeros({1, 144}, at::kBool);
    mask.narrow(1, 20, 30).fill_(true);
    test::expect_near(vit->forward(first), {-0.44029, -1.14077, 0.05733}, 0.45908);
    test::expect_near(vit->forward_features(first, mask).cls, {-0.87345, -1.08389, 0.15405}, 0.09361);
    test::expect_near(vit->forward(first.narrow(2, 0, 60).narrow(3, 0, 60)), {-0.34445, -1.09790, 0.17264},
                      0.77535);
    test::expect_near(vit->position_table(5, 5), {-0.37553, -0.07268, -0.34156}, 0.27613, 41.03101);

    const auto tokens = vit->tokens_without_position(images);
    test::expect_near(tokens[0], {-0.23818, -0.50256, -0.77058}, 0.55750, 385.9202);
    auto head = filled_head(1024, false);
    EXPECT_EQ(parameters(*head), 12'595'200);
    const auto z = head->forward(tokens);
    test::expect_near(z[0], {-0.81819, -0.33657, -0.81816}, 0.27471, 20.81273);
    test::expect_near(z[1], {-0.78177, -0.49847, -0.87756}, 0.26936);
    expect_known_loss(z, embedded_spectra());
}

// The workshop's model: the projection of the ResNet and the spectrum head are what it trained.
TEST(PublishedSize, OfTheWorkshopsModelHasItsNumbersOfParameters)
{
    const auto learned = [](const torch::nn::Module& module) {
        std::int64_t count = 0;
        for (const auto& parameter : module.parameters()) count += parameter.numel();
        return count;
    };
    const AlignedModel model(ResNetConfig{}, SpecFormerConfig{}, HeadConfig{.embed_dim = 128});
    EXPECT_EQ(learned(*model->image_encoder), 27'966'656);
    EXPECT_EQ(learned(*model->image_encoder->resnet->named_children()["fc"]), 4'458'624);
    EXPECT_EQ(learned(*model->spectrum_encoder), 43'539'734);
}

}  // namespace
}  // namespace astroclip::nn
