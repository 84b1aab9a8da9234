#include "nn/encoder.hpp"

#include <ATen/ATen.h>
#include <ATen/autocast_mode.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>

#include "core/error.hpp"
#include "support/fill_module.hpp"

namespace astroclip::nn {
namespace {

const ViTConfig vit_config_{.image_size = 48, .width = 24, .depth = 4, .heads = 3};
const SpecFormerConfig specformer_config_{.width = 36, .layers = 2, .heads = 3, .max_tokens = 64};
const HeadConfig head_config_{.embed_dim = 24, .attention_heads = 4};

class ModelFile : public testing::Test {
protected:
    ModelFile() : path_(std::filesystem::temp_directory_path() / ("model-" + std::to_string(::getpid()))) {}
    ~ModelFile() override { std::filesystem::remove(path_); }
    const std::string path_;
    const at::Tensor images_ = test::fill_tensor(1, {2, 3, 48, 48}).abs();
    const at::Tensor tokens_ = test::fill_tensor(2, {2, 33, 22});
};

TEST_F(ModelFile, OfAnAlignedModelEmbedsBothModalities)
{
    AlignedModel model(vit_config_, specformer_config_, head_config_);
    initialise(*model, 5);
    save_weights(path_, published_state(*model), describe(vit_config_, specformer_config_, head_config_));
    const auto embedder = load_embedder(path_, at::kCPU);
    EXPECT_EQ(embedder->image_width(), 24);
    EXPECT_EQ(embedder->spectrum_width(), 24);
    EXPECT_EQ(embedder->image_size(), 48);
    EXPECT_TRUE(embedder->embed_images(images_).equal(model->image_encoder->forward(images_)));
    EXPECT_TRUE(embedder->embed_spectra(tokens_).equal(model->spectrum_encoder->forward(tokens_)));
    EXPECT_FALSE(embedder->embed_images(images_).requires_grad());
}

TEST_F(ModelFile, OfAnImageEncoderGivesTheClsToken)
{
    VisionTransformer vit(vit_config_);
    initialise(*vit, 5);
    auto state = published_state(*vit);
    state.emplace_back("dino_head.mlp.0.weight", at::ones({2, 2}));  // a teacher snapshot carries its head
    state.emplace_back("extra.register_tokens", at::ones({1, 4, 24}));
    save_weights(path_, state, describe(vit_config_));
    const auto embedder = load_embedder(path_, at::kCPU);
    EXPECT_TRUE(embedder->embed_images(images_).equal(vit->forward_features(images_).cls));
    EXPECT_EQ(embedder->spectrum_width(), 0);
}

TEST_F(ModelFile, OfASpectrumEncoderGivesTheMeanToken)
{
    SpecFormer specformer(specformer_config_);
    initialise(*specformer, 5);
    save_weights(path_, published_state(*specformer), describe(specformer_config_));
    const auto embedder = load_embedder(path_, at::kCPU);
    EXPECT_TRUE(embedder->embed_spectra(tokens_).equal(specformer->forward(tokens_).mean(1)));
    EXPECT_EQ(embedder->image_width(), 0);
}

TEST_F(ModelFile, OfAMocoGivesThePooledFeaturesOfItsQueryEncoder)
{
    const ResNetConfig config{.layers = 18, .embed_dim = 8};
    ResNet resnet(config);
    initialise(*resnet, 5);
    resnet->eval();
    NamedTensors state;
    for (const auto& [name, tensor] : published_state(*resnet)) {
        state.emplace_back("encoder_q." + name, tensor);
    }
    state.emplace_back("encoder_k.fc.2.bias", at::zeros({8}));
    state.emplace_back("queue", at::zeros({8, 16}));
    auto metadata = describe(config);
    metadata.erase("stem_width");  // the published width need not be told
    metadata["crop"] = "96";
    save_weights(path_, state, metadata);
    const auto embedder = load_embedder(path_, at::kCPU);
    EXPECT_EQ(embedder->image_width(), 512);
    EXPECT_EQ(embedder->spectrum_width(), 0);
    EXPECT_EQ(embedder->image_size(), 96);
    EXPECT_TRUE(embedder->embed_images(images_).equal(resnet->features(images_)));
    EXPECT_TRUE(
        untrained_embedder(path_, 5, at::kCPU)->embed_images(images_).equal(resnet->features(images_)));

    state.emplace_back("encoder_q.fc.4.bias", at::zeros({8}));  // strict about the query encoder itself
    save_weights(path_, state, metadata);
    EXPECT_THROW(load_embedder(path_, at::kCPU), DataError);
}

TEST_F(ModelFile, OfAnAlignedResNetEmbedsByItsProjection)
{
    const ResNetConfig config{.layers = 18, .embed_dim = 24, .stem_width = 8};
    AlignedModel model(config, specformer_config_, head_config_);
    initialise(*model, 5);
    model->eval();
    EXPECT_FALSE(model->named_parameters().contains("image_encoder.mlp.encoder.weight"));
    auto metadata = describe(config, specformer_config_, head_config_);
    EXPECT_EQ(metadata.at("image.model"), "resnet18");
    metadata["image.crop"] = "40";
    save_weights(path_, published_state(*model), metadata);
    const auto embedder = load_embedder(path_, at::kCPU);
    EXPECT_EQ(embedder->image_width(), 24);
    EXPECT_EQ(embedder->image_size(), 40);
    EXPECT_TRUE(embedder->embed_images(images_).equal(model->image_encoder->resnet->forward(images_)));
    EXPECT_TRUE(embedder->embed_spectra(tokens_).equal(model->spectrum_encoder->forward(tokens_)));
    EXPECT_EQ(model->image_encoder->tokens(images_).sizes(), at::IntArrayRef({2, 1, 64}));
    EXPECT_EQ(untrained_embedder(path_, 5, at::kCPU)->image_width(), 24);

    const HeadConfig other{.embed_dim = 32};
    EXPECT_THROW(AlignedModel(config, specformer_config_, other), ConfigError);
}

TEST_F(ModelFile, KeepsEncodersInterchangeableWithAlignedOnes)
{
    AlignedModel model(vit_config_, specformer_config_, head_config_);
    SpecFormer specformer(specformer_config_);
    initialise(*specformer, 5);
    NamedTensors state;
    for (const auto& [name, tensor] : published_state(*specformer)) {
        state.emplace_back("spectrum_encoder.backbone." + name, tensor);
    }
    save_weights(path_, state, {});
    load_strict(*model->spectrum_encoder->backbone, WeightsFile(path_), "spectrum_encoder.backbone.");
    EXPECT_TRUE(model->spectrum_encoder->backbone->forward(tokens_).equal(specformer->forward(tokens_)));
}

TEST_F(ModelFile, IsRefusedWithoutAKnownModelOrItsNumbers)
{
    SpecFormer specformer(specformer_config_);
    auto metadata = describe(specformer_config_);
    metadata.erase("num_heads");
    save_weights(path_, published_state(*specformer), metadata);
    EXPECT_THROW(load_embedder(path_, at::kCPU), DataError);
    metadata["num_heads"] = "three";
    save_weights(path_, published_state(*specformer), metadata);
    EXPECT_THROW(load_embedder(path_, at::kCPU), DataError);
    metadata["model"] = "zoobot";
    save_weights(path_, published_state(*specformer), metadata);
    EXPECT_THROW(load_embedder(path_, at::kCPU), DataError);
    EXPECT_THROW(load_vit(path_), DataError);
}

// bfloat16 has 8 bits of mantissa: 5 % of the largest element after a few layers is rounding, more
// would be a fault.
TEST(AlignedModel, TrainsUnderBfloat16Autocast)
{
    AlignedModel model(vit_config_, specformer_config_, head_config_);
    test::fill_module(*model);
    const auto images = test::fill_tensor(1, {2, 3, 48, 48}).abs();
    const auto tokens = test::fill_tensor(2, {2, 33, 22});
    const auto both = [&] {
        const auto cls =
            model->image_encoder->vit->forward_features(images, at::ones({2, 16}, at::kBool)).cls;
        return at::cat({model->image_encoder->forward(images), model->spectrum_encoder->forward(tokens), cls})
            .to(at::kFloat);
    };
    const auto exact = both();
    at::autocast::set_autocast_enabled(at::kCPU, true);
    at::autocast::set_autocast_dtype(at::kCPU, at::kBFloat16);
    const auto rounded = both();
    at::autocast::clear_cache();
    at::autocast::set_autocast_enabled(at::kCPU, false);
    EXPECT_LT((rounded - exact).abs().max().item<double>(), 0.05 * exact.abs().max().item<double>());
    EXPECT_FALSE(rounded.equal(exact));
    rounded.square().sum().backward();
    for (const auto& item : model->named_parameters()) {
        // The two that these outputs do not depend on.
        if (item.key().ends_with("backbone.head.weight") || item.key().ends_with("backbone.head.bias"))
            continue;
        ASSERT_TRUE(item.value().grad().defined()) << item.key();
        EXPECT_TRUE(item.value().grad().isfinite().all().item<bool>()) << item.key();
    }
}

// The head's parts stand beside the backbone, and are the very parameters that the head trains.
TEST(AlignedModel, HasThePublishedNames)
{
    AlignedModel model(vit_config_, specformer_config_, head_config_);
    const auto parameters = model->named_parameters();
    EXPECT_TRUE(parameters.contains("image_encoder.backbone.blocks.3.3.attn.qkv.weight"));
    EXPECT_TRUE(parameters.contains("image_encoder.cross_attention.multihead_attn.in_proj_weight"));
    EXPECT_TRUE(parameters.contains("spectrum_encoder.cross_attention.multihead_attn.k_proj_weight"));
    const auto head = model->image_encoder->head->named_parameters();
    EXPECT_TRUE(head["mlp.decoder.bias"].is_same(parameters["image_encoder.mlp.decoder.bias"]));
    EXPECT_EQ(published_state(*model).size(), parameters.size());
}

}  // namespace
}  // namespace astroclip::nn
