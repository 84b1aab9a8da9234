#include "ssl/clip_task.hpp"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "core/error.hpp"
#include "support/ranks.hpp"
#include "support/reference.hpp"
#include "support/tiny_survey.hpp"
#include "train/step.hpp"

namespace astroclip::ssl {
namespace {

const nn::ViTConfig vit{
    .image_size = 12, .patch_size = 4, .width = 32, .depth = 2, .heads = 2, .block_chunks = 0};
const nn::SpecFormerConfig specformer{.width = 24, .layers = 2, .heads = 2, .max_tokens = 64};

class Alignment : public testing::Test {
protected:
    Alignment() : ranks_(test::all_ranks())
    {
        survey_.folder = test::scratch_folder(ranks_.world, "align");
        survey_.bins = 400;  // 39 tokens
        test::write_images(ranks_.world, survey_);
        test::write_spectra(ranks_.world, survey_);
        test::write_pairs(ranks_.world, survey_);
        galaxies_ = std::make_unique<data::Galaxies>(
            data::Stores{survey_.images(), survey_.spectra(), survey_.pairs()});
        config_.batch_size = 16;
        config_.head = {.embed_dim = 32, .attention_heads = 4, .dropout = 0.1};
        config_.view.crop = 12;
        config_.schedule = {.learning_rate = 1e-3, .warmup_steps = 2, .total_steps = 20};
    }
    ~Alignment() override { test::remove_scratch(ranks_.world, survey_.folder); }

    nn::AlignedModel model() const
    {
        nn::AlignedModel fresh(vit, specformer, config_.head);
        nn::initialise(*fresh, 3);
        fresh->to(type_);
        return fresh;
    }
    ClipTask task(comm::Communicator& ranks, const TokenCache* cache = nullptr) const
    {
        return {config_, model(), vit, specformer, *galaxies_, ranks, 5, cache};
    }
    std::vector<double> losses(comm::Communicator& ranks, const TokenCache* cache = nullptr) const
    {
        auto trained = task(ranks, cache);
        train::Step step(trained, {}, ranks);
        trained.seek(0);
        std::vector<double> all;
        for (std::int64_t i = 0; i < 10; ++i) {
            trained.fetch();
            auto loss = at::scalar_tensor(step.gradient(trained, i).loss, at::kDouble);
            ranks.all_reduce_sum(loss);
            all.push_back(loss.item<double>() / ranks.size());
            step.apply(trained.rates(i));
        }
        const at::NoGradGuard no_grad;
        all.push_back(trained.validate().at("loss"));
        return all;
    }
    // Of the first step, by parameter.
    std::map<std::string, at::Tensor> gradients(std::int64_t micro_batch)
    {
        config_.micro_batch = micro_batch;
        auto trained = task(ranks_);
        train::Step step(trained, {.clip_norm = 0, .bucket_bytes = 1 << 12}, ranks_);
        trained.seek(0);
        trained.fetch();
        step.gradient(trained, 0);
        std::map<std::string, at::Tensor> all;
        for (const auto& parameter : step.parameters()) {
            all[parameter.name] = parameter.tensor.grad().clone();
        }
        return all;
    }

    test::Ranks ranks_;
    test::TinySurvey survey_;
    std::unique_ptr<data::Galaxies> galaxies_;
    ClipTaskConfig config_;
    at::ScalarType type_ = at::kFloat;
};

TEST_F(Alignment, GivesTheSameLossesOnAnyNumberOfRanks)
{
    const auto together = losses(ranks_);
    auto alone = test::this_rank_alone();
    const auto expected = losses(alone);
    for (std::size_t i = 0; i < expected.size(); ++i) {
        // Rounding of 1e-7 in the gradients; other dropout or negatives would change percents.
        EXPECT_NEAR(together[i] / expected[i], 1, 1e-4) << i;
    }
    EXPECT_LT(together[9], together[0]);
}

TEST_F(Alignment, OfMicroBatchesHasTheGradientOfTheWholeBatch)
{
    config_.image_encoder_rate = config_.spectrum_encoder_rate = 0.1;  // all the way into the encoders
    config_.loss.learn_scale = true;
    const auto whole = gradients(0);
    for (const std::int64_t micro_batch : {1, 3}) {
        for (const auto& [name, gradient] : gradients(micro_batch)) {
            // Sums of parts of the batch in another order: rounding of float32.
            EXPECT_LT(test::relative_difference(gradient, whole.at(name)), 1e-5) << name;
        }
    }
    type_ = at::kDouble;
    const auto exact = gradients(0);
    for (const auto& [name, gradient] : gradients(3)) {
        EXPECT_EQ(gradient.scalar_type(), at::kDouble) << name;
        EXPECT_LT(test::relative_difference(gradient, exact.at(name)), 1e-10) << name;
    }
}

TEST_F(Alignment, FromCachedTokensTrainsAsFromTheEncoders)
{
    const auto encoders = model();
    const auto encode_batch = [&](const data::Batch& batch) {
        const at::NoGradGuard no_grad;
        return EncoderTokens{encode_images(encoders, batch, config_.view, at::kCPU),
                             encode_spectra(encoders, batch, config_.tokens, at::kCPU)};
    };
    {
        store::Output output(ranks_.world, survey_.folder + "/tokens", {"token-cache", {}, "tiny", {}},
                             false);
        make_token_cache(output, *galaxies_, encode_batch, 32, [](std::int64_t, std::int64_t) {});
    }
    const TokenCache cache(survey_.folder + "/tokens", *galaxies_, false);
    const auto numbers = galaxies_->paired(true);
    const auto batch = cache.read(numbers);
    const auto tokens = encode_batch(galaxies_->read(numbers));
    EXPECT_EQ(batch.object_ids, galaxies_->read(numbers).object_ids);
    // Half of the last of a float16's 11 bits.
    EXPECT_LT(test::relative_difference(batch.image_tokens, tokens.image), 5e-4);
    EXPECT_LT(test::relative_difference(batch.spectrum_tokens, tokens.spectrum), 5e-4);

    const auto cached = losses(ranks_, &cache), computed = losses(ranks_);
    for (std::size_t i = 0; i < cached.size(); ++i) {
        EXPECT_NEAR(cached[i], computed[i], 1e-3) << i;
    }
}

TEST_F(Alignment, TrainsEncodersPartlyAndAtTheirOwnRates)
{
    config_.spectrum_encoder_rate = 0.1;
    config_.trained_blocks = 1;
    auto alone = test::this_rank_alone();
    std::map<std::string, double> encoder;
    for (const auto& parameter : task(alone).parameters()) {
        if (parameter.name.find(".backbone.") != std::string::npos) {
            encoder[parameter.name] = parameter.learning_rate_scale;
        }
    }
    ASSERT_EQ(encoder.size(),
              14U);  // a block's norms, attention and MLP, and the last norm: weights and biases
    for (const auto& [name, rate] : encoder) {
        EXPECT_EQ(rate, 0.1);
        EXPECT_TRUE(name.starts_with("spectrum_encoder.backbone.blocks.1.") ||
                    name.starts_with("spectrum_encoder.backbone.final_layernorm."))
            << name;
    }
}

}  // namespace
}  // namespace astroclip::ssl
