#include "ssl/clip_task.hpp"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "core/error.hpp"
#include "ssl/tiny_alignment.hpp"
#include "support/reference.hpp"

namespace astroclip::ssl {
namespace {

using Alignment = test::TinyAlignment;

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

TEST_F(Alignment, ClampsALearnedScaleAndPublishesIt)
{
    config_.loss.learn_scale = true;
    auto alone = test::this_rank_alone();
    auto trained = task(alone);
    const auto scale = trained.parameters().front();
    ASSERT_EQ(scale.name, "log_scale");
    EXPECT_EQ(scale.weight_decay_scale, 0);
    EXPECT_NEAR(scale.tensor.item<double>(), std::log(15.5), 1e-6);
    {
        const at::NoGradGuard no_grad;
        at::Tensor(scale.tensor).fill_(std::log(250.0));
    }
    trained.after_step(0);
    EXPECT_NEAR(scale.tensor.exp().item<double>(), 100, 1e-4);
    EXPECT_TRUE(trained.model().at("extra.log_scale").equal(scale.tensor.detach()));
    EXPECT_EQ(trained.model_metadata().at("logit_scale"), "exp(extra.log_scale)");

    config_.loss.learn_scale = false;
    EXPECT_FALSE(task(alone).model().contains("extra.log_scale"));
    EXPECT_EQ(task(alone).model_metadata().at("logit_scale"), "15.5");
}

TEST_F(Alignment, GoesOnWithALearnedScaleFromItsState)
{
    config_.loss.learn_scale = true;
    config_.schedule.by_step.learning_rate = 0.1;
    const auto steps = [](ClipTask& trained, train::Step& step, std::int64_t first, std::int64_t after) {
        trained.seek(first);
        for (auto i = first; i < after; ++i) {
            trained.fetch();
            step.gradient(trained, i);
            step.apply(trained.rates(i));
            trained.after_step(i);
        }
    };
    const auto copied = [](std::map<std::string, at::Tensor> state) {
        for (auto& [name, tensor] : state) tensor = tensor.clone();
        return state;
    };
    auto whole = task(ranks_);
    train::Step step(whole, {}, ranks_);
    steps(whole, step, 0, 3);
    const auto state = copied(whole.state()), moments = copied(step.optimizer().state());
    steps(whole, step, 3, 6);

    auto resumed = task(ranks_);
    train::Step again(resumed, {}, ranks_);
    resumed.load_state(state);
    again.optimizer().load_state(moments);
    steps(resumed, again, 3, 6);
    EXPECT_FALSE(resumed.state().at("log_scale").equal(state.at("log_scale")));
    for (const auto& [name, tensor] : whole.state()) {
        EXPECT_TRUE(tensor.equal(resumed.state().at(name))) << name;
    }
}

TEST_F(Alignment, TellsTheGradientNormOfEachPart)
{
    config_.spectrum_encoder_rate = 0.1;
    config_.loss.learn_scale = true;
    auto trained = task(ranks_);
    train::Step step(trained, {}, ranks_);
    trained.seek(0);
    trained.fetch();
    const auto norms = step.gradient(trained, 0).norms;
    double squares = 0;
    for (const std::string part : {"image_head", "spectrum_head", "spectrum_encoder", "logit_scale"}) {
        EXPECT_GT(norms.at(part), 0) << part;
        squares += norms.at(part) * norms.at(part);
    }
    EXPECT_EQ(norms.size(), 5u);  // and that of all, by which they are clipped; a frozen encoder has none
    EXPECT_NEAR(std::sqrt(squares) / norms.at(""), 1, 1e-6);
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
    const TokenCache cache(survey_.folder + "/tokens", *galaxies_);
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

TEST_F(Alignment, OfNoPairsHasNoTokens)
{
    const data::Galaxies images({.images = survey_.images()});
    EXPECT_THROW(token_cache_bytes(images, {}), ConfigError);
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
