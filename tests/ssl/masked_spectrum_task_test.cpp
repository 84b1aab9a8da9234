#include "ssl/masked_spectrum_task.hpp"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "core/error.hpp"
#include "nn/encoder.hpp"
#include "ssl/masked_spectrum_loss.hpp"
#include "support/fill_module.hpp"
#include "support/training.hpp"
#include "train/gradient_sync.hpp"
#include "train/optimizer.hpp"

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

class MaskedSpectra : public test::Training<MaskedSpectrumTask, MaskedSpectrumConfig> {
protected:
    MaskedSpectra() : Training("masked")
    {
        survey_.bins = 400;  // 39 tokens
        write_stores(test::write_spectra);
        galaxies_ = std::make_unique<data::Galaxies>(data::Stores{.spectra = survey_.spectra()});
        config_.batch_size = 8;
        config_.masks = {.chunks = 2, .width = 5};
        config_.model = {.width = 48, .layers = 2, .heads = 3, .max_tokens = 64};
        config_.schedule = {.learning_rate = 1e-3, .warmup_steps = 4, .total_steps = 20};
        trainer_ = {.steps = 20, .beta2 = 0.95};
    }

    // Rounding of 1e-7 in the gradients grows to less than 1e-6 of the loss in 20 steps; another mask changes
    // percents.
    Lines expect_the_same_alone_and_together()
    {
        return Training::expect_the_same_alone_and_together({"loss", "val_loss"}, 1e-4);
    }
};

TEST_F(MaskedSpectra, GiveTheSameLossesOnAnyNumberOfRanksAndAModelThatLoads)
{
    std::vector<double> losses;
    for (const auto& line : expect_the_same_alone_and_together()) {
        if (line.contains("loss")) losses.push_back(line.at("loss"));
    }
    ASSERT_EQ(losses.size(), 20u);
    EXPECT_LT(losses.back(), 0.9 * losses.front());
    const auto loaded = nn::load_specformer(model("together"));  // by its published names
    EXPECT_EQ(loaded->config().width, 48);
    const auto tokens = data::spectrum_tokens(test::check_spectra(400));
    EXPECT_TRUE(at::isfinite(loaded->reconstruct(tokens)).all().item<bool>());
}

TEST_F(MaskedSpectra, GiveTheSameLossesOnAnyNumberOfRanksWithDropoutAndInverseVariance)
{
    config_.model.dropout = 0.1;
    config_.model.causal = true;
    config_.weighting = "ivar";
    config_.tokens.bad_bins = "leave-out";
    galaxies_->read_ivar();
    expect_the_same_alone_and_together();
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
