#include "ssl/masked_spectrum_task.hpp"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>

#include "core/error.hpp"
#include "nn/encoder.hpp"
#include "ssl/masked_spectrum_loss.hpp"
#include "support/fill_module.hpp"
#include "support/ranks.hpp"
#include "support/tiny_survey.hpp"
#include "train/gradient_sync.hpp"
#include "train/optimizer.hpp"
#include "train/trainer.hpp"

namespace astroclip::ssl {
namespace {

// Losses and gradient norms of four steps of the published code with these weights, spectra and masks; 2e-4
// is the tolerance of those numbers in float32.
TEST(MaskedSpectrumTraining, ReproducesThePublishedCodesFirstSteps)
{
    const auto ranks = test::this_rank_alone();
    nn::SpecFormer model(
        nn::SpecFormerConfig{.token_dim = 22, .width = 48, .layers = 2, .heads = 3, .max_tokens = 64});
    test::fill_module(*model);
    std::vector<train::Parameter> parameters;
    std::vector<at::Tensor> tensors;
    for (const auto& named : model->named_parameters()) {
        parameters.push_back({.name = named.key(), .tensor = named.value()});
        tensors.push_back(named.value());
    }
    train::AdamW optimizer(parameters, {0.9, 0.95, 1e-8});
    train::GradientSync sync(tensors, ranks, 1 << 20);
    const auto tokens = data::spectrum_tokens(test::check_spectra(400));
    const auto input = data::mask_tokens(tokens, at::tensor({3, 22, 10, 30}, at::kLong).view({2, 2}), 5);

    const double rates[] = {0, 5e-4, 1e-3, 1e-3};
    const double losses[] = {1.5653476, 1.5653476, 1.1699286, 0.7971560};
    const double norms[] = {7.3754144, 7.3754144, 4.9915190, 4.0218287};
    for (int step = 0; step < 4; ++step) {
        sync.begin();
        const auto loss = masked_spectrum_loss(ranks, masked_sums(model->reconstruct(input), tokens, input));
        loss.share.backward();
        sync.finish();
        const auto norm = train::clip_gradients(parameters, 1.0).at("");
        EXPECT_EQ(loss.count, 400);
        EXPECT_NEAR(loss.loss / losses[step], 1, 2e-4) << step;
        EXPECT_NEAR(norm / norms[step], 1, 2e-4) << step;
        optimizer.step({rates[step], rates[step], 0.1});
    }
}

class MaskedSpectra : public testing::Test {
protected:
    MaskedSpectra() : ranks_(test::all_ranks())
    {
        survey_.folder = test::scratch_folder(ranks_.world, "masked");
        survey_.bins = 400;  // 39 tokens
        test::write_spectra(ranks_.world, survey_);
        galaxies_ = std::make_unique<data::Galaxies>(data::Stores{.spectra = survey_.spectra()});
        config_.batch_size = 8;
        config_.masks = {.chunks = 2, .width = 5};
        config_.model = {.width = 48, .layers = 2, .heads = 3, .max_tokens = 64};
        config_.schedule = {.learning_rate = 1e-3, .warmup_steps = 4, .total_steps = 20};
    }
    ~MaskedSpectra() override { test::remove_scratch(ranks_.world, survey_.folder); }

    std::vector<double> losses_in(const std::string& name, test::Ranks& ranks)
    {
        std::vector<double> losses;
        MaskedSpectrumTask task(config_, *galaxies_, ranks, 5);
        store::Output output(ranks.world, survey_.folder + "/" + name, {"pretrain-spectrum", {}, "tiny", {}},
                             false);
        Progress progress(false);
        train::train(task, {.steps = 20, .beta2 = 0.95},
                     {ranks.world, *ranks.tensors, output, progress,
                      [&](const nlohmann::json& line) {
                          for (const auto* key : {"loss", "val_loss"}) {
                              if (line.contains(key)) losses.push_back(line.at(key));
                          }
                      },
                      [](const std::string&) {}});
        return losses;
    }

    test::Ranks ranks_;
    test::TinySurvey survey_;
    std::unique_ptr<data::Galaxies> galaxies_;
    MaskedSpectrumConfig config_;
};

TEST_F(MaskedSpectra, GiveTheSameLossesOnAnyNumberOfRanks)
{
    const auto losses = losses_in("together", ranks_);
    auto alone = test::this_rank_alone();
    const auto expected = losses_in("alone-" + std::to_string(ranks_.rank()), alone);
    ASSERT_EQ(losses.size(), expected.size());
    for (std::size_t i = 0; i < losses.size(); ++i) {
        // Rounding of 1e-7 in the gradients grows to less than 1e-6 of the loss in 20 steps; another mask
        // changes percents.
        EXPECT_NEAR(losses[i] / expected[i], 1, 1e-4) << i;
    }
    EXPECT_LT(losses[losses.size() - 2], 0.9 * losses.front());
}

TEST_F(MaskedSpectra, GiveTheSameLossesOnAnyNumberOfRanksWithDropoutAndInverseVariance)
{
    config_.model.dropout = 0.1;
    config_.model.causal = true;
    config_.weighting = "ivar";
    config_.tokens.bad_bins = "leave-out";
    galaxies_->read_ivar();
    const auto losses = losses_in("together", ranks_);
    auto alone = test::this_rank_alone();
    const auto expected = losses_in("alone-" + std::to_string(ranks_.rank()), alone);
    ASSERT_EQ(losses.size(), expected.size());
    for (std::size_t i = 0; i < losses.size(); ++i) {
        EXPECT_NEAR(losses[i] / expected[i], 1, 1e-4) << i;  // as above
    }
}

TEST_F(MaskedSpectra, MakeAModelThatLoadsByItsPublishedNames)
{
    losses_in("model", ranks_);
    const auto model = nn::load_specformer(survey_.folder + "/model/model.safetensors");
    EXPECT_EQ(model->config().width, 48);
    const auto tokens = data::spectrum_tokens(test::check_spectra(400));
    EXPECT_TRUE(at::isfinite(model->reconstruct(tokens)).all().item<bool>());
}

TEST_F(MaskedSpectra, AreValidatedWithMasksThatStayTheSame)
{
    MaskedSpectrumTask task(config_, *galaxies_, ranks_, 5);
    const auto first = task.validate().at("loss");
    task.seek(0);  // while another thread reads
    EXPECT_EQ(task.validate().at("loss"), first);
    EXPECT_GT(first, 0);
}

TEST_F(MaskedSpectra, ThatDoNotFitTheModelAreRefused)
{
    config_.model.max_tokens = 20;
    EXPECT_THROW(MaskedSpectrumTask(config_, *galaxies_, ranks_, 5), ConfigError);
    config_.model.max_tokens = 64;
    config_.masks = {.chunks = 6, .width = 50};
    EXPECT_THROW(MaskedSpectrumTask(config_, *galaxies_, ranks_, 5), ConfigError);
    config_.masks = {.chunks = 2, .width = 5};
    config_.batch_size = 100;
    EXPECT_THROW(MaskedSpectrumTask(config_, *galaxies_, ranks_, 5), ConfigError);
}

}  // namespace
}  // namespace astroclip::ssl
