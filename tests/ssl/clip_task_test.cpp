#include "ssl/clip_task.hpp"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "core/error.hpp"
#include "ssl/task_state.hpp"
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
        nn::AlignedModel fresh(image_, specformer, config_.head);
        // A ResNet's 11 million first values take their time: they are drawn once.
        static std::map<bool, std::map<std::string, at::Tensor>> drawn;
        auto& first = drawn[nn::is_resnet(image_)];
        if (first.empty()) {
            nn::initialise(*fresh, 3);
            for (const auto& [name, tensor] : nn::published_state(*fresh)) {
                first[name] = tensor.detach().clone();
            }
        }
        take_state(first, "", *fresh);
        fresh->eval();
        nn::convert(*fresh, at::kCPU, type_);
        return fresh;
    }
    ClipTask task(comm::Communicator& ranks, const TokenCache* cache = nullptr) const
    {
        return {config_, model(), image_, specformer, *galaxies_, ranks, 5, cache};
    }
    // The earlier variant: a ResNet that is normalised by groups of its batch, flipped images, its own
    // widths.
    void be_the_workshops()
    {
        image_ = nn::ResNetConfig{.layers = 18, .embed_dim = 32};
        config_.group_size = 4;
        config_.head.hidden_dropout = 0.1;
        config_.augmentation.flips = "always";
        config_.view.rgb = "none";
    }
    std::map<std::string, at::Tensor> buffers(const ClipTask& task) const
    {
        std::map<std::string, at::Tensor> all;
        for (const auto& [name, tensor] : task.state()) {
            if (name.find("running_") != std::string::npos || name.ends_with("num_batches_tracked")) {
                all[name] = tensor.clone();
            }
        }
        return all;
    }
    // Running statistics after two steps.
    std::map<std::string, at::Tensor> statistics(comm::Communicator& ranks) const
    {
        auto trained = task(ranks);
        trained.seek(0);
        for (std::int64_t step = 0; step < 2; ++step) {
            trained.fetch();
            trained.forward(step).share.backward();
            trained.after_step(step);
        }
        return buffers(trained);
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
        return gradients(micro_batch, ranks_);
    }
    std::map<std::string, at::Tensor> gradients(std::int64_t micro_batch, comm::Communicator& ranks)
    {
        config_.micro_batch = micro_batch;
        auto trained = task(ranks);
        train::Step step(trained, {.clip_norm = 0, .bucket_bytes = 1 << 12}, ranks);
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
    nn::ImageConfig image_ = vit;
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

TEST_F(Alignment, OfAResNetGivesTheSameGradientsAndStatisticsOnAnyNumberOfRanks)
{
    if (ranks_.size() == 1) GTEST_SKIP() << "needs two ranks";
    be_the_workshops();
    auto alone = test::this_rank_alone();
    // Rounding of float32; of float64. Batch normalisation by other groups would change percents.
    for (const auto& [type, tolerance] :
         std::map<at::ScalarType, double>{{at::kFloat, 1e-5}, {at::kDouble, 1e-10}}) {
        type_ = type;
        const auto expected = gradients(0, alone);
        for (const auto& [name, gradient] : gradients(0)) {
            EXPECT_LT(test::relative_difference(gradient, expected.at(name)), tolerance) << name;
        }
        const auto expected_statistics = statistics(alone);
        for (const auto& [name, values] : statistics(ranks_)) {
            EXPECT_LT(test::relative_difference(values, expected_statistics.at(name)), tolerance) << name;
        }
    }
}

TEST_F(Alignment, OfAFrozenResNetTrainsItsProjectionAndLetsItsStatisticsFollowTheImages)
{
    be_the_workshops();
    auto alone = test::this_rank_alone();
    const auto parameters = task(alone).parameters();
    const auto of_image = std::count_if(parameters.begin(), parameters.end(), [](const auto& parameter) {
        return parameter.name.starts_with("image_encoder.");
    });
    EXPECT_EQ(of_image, 4);  // weight and bias of the two layers of fc
    EXPECT_EQ(parameters.front().learning_rate_scale, 1);

    const auto before = buffers(task(alone)), after = statistics(alone);
    EXPECT_EQ(after.at("image_encoder.backbone.bn1.num_batches_tracked").item<std::int64_t>(), 2);
    EXPECT_FALSE(after.at("image_encoder.backbone.bn1.running_mean")
                     .equal(before.at("image_encoder.backbone.bn1.running_mean")));
    EXPECT_FALSE(config_.same_tokens_every_epoch(image_));
    config_.bn_mode = "eval";
    for (const auto& [name, values] : statistics(alone)) {
        EXPECT_TRUE(values.equal(before.at(name))) << name;
    }
    config_.augmentation.flips = "none";
    EXPECT_TRUE(config_.same_tokens_every_epoch(image_));
}

TEST_F(Alignment, TrainsAResNetsLastBlocks)
{
    be_the_workshops();
    config_.image_encoder_rate = 0.5;
    config_.trained_blocks = 3;
    auto alone = test::this_rank_alone();
    std::set<std::string> blocks;
    for (const auto& parameter : task(alone).parameters()) {
        if (parameter.learning_rate_scale == 1) continue;
        EXPECT_EQ(parameter.learning_rate_scale, 0.5);
        blocks.insert(parameter.name.substr(0, std::string("image_encoder.backbone.layer4.0").size()));
    }
    const std::string backbone = "image_encoder.backbone.";
    EXPECT_EQ(blocks,
              (std::set<std::string>{backbone + "layer3.1", backbone + "layer4.0", backbone + "layer4.1"}));
}

TEST_F(Alignment, OfMicroBatchesOfAResNetHasTheGradientOfTheWholeBatchAndCountsItsGroupsOnce)
{
    be_the_workshops();
    config_.image_encoder_rate = config_.spectrum_encoder_rate = 0.1;
    type_ = at::kDouble;
    const auto whole = gradients(0);
    const auto statistics_of_whole = statistics(ranks_);
    for (const auto& [name, gradient] : gradients(4)) {
        EXPECT_LT(test::relative_difference(gradient, whole.at(name)), 1e-10) << name;
    }
    for (const auto& [name, values] : statistics(ranks_)) {
        EXPECT_LT(test::relative_difference(values, statistics_of_whole.at(name)), 1e-10) << name;
    }
}

TEST_F(Alignment, OfAResNetRefusesGroupsThatRanksWouldShare)
{
    be_the_workshops();
    const auto refused = [&] { EXPECT_THROW(task(ranks_), ConfigError); };
    config_.group_size = 3;
    refused();
    config_.group_size = 1;
    refused();
    config_.group_size = 4;
    config_.micro_batch = 2;
    refused();
    config_.micro_batch = 0;
    config_.group_size = 0;  // the whole batch: one rank's
    if (ranks_.size() > 1) refused();
    config_.bn_mode = "eval";
    EXPECT_NO_THROW(task(ranks_));
}

}  // namespace
}  // namespace astroclip::ssl
