#include "ssl/supervised_task.hpp"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>
#include <numeric>
#include <set>

#include "core/error.hpp"
#include "nn/regressor.hpp"
#include "support/ranks.hpp"
#include "support/tiny_survey.hpp"
#include "train/trainer.hpp"

namespace astroclip::ssl {
namespace {

struct Killed {};

class Supervised : public testing::Test {
protected:
    Supervised() : ranks_(test::all_ranks())
    {
        survey_.folder = test::scratch_folder(ranks_.world, "supervised");
        survey_.image_size = 24;
        survey_.galaxies = 99;  // not a multiple of 5, see TinySurvey::spectrum_id
        survey_.bins = 600;
        test::write_images(ranks_.world, survey_);
        test::write_spectra(ranks_.world, survey_);
        images_ = std::make_unique<data::Galaxies>(data::Stores{.images = survey_.images()});
        spectra_ = std::make_unique<data::Galaxies>(data::Stores{.spectra = survey_.spectra()});
        config_.batch_size = 16;
        config_.group_size = 8;
        config_.resnet_width = 8;
        config_.learning_rate = 2e-3;
        config_.view.crop = 20;
        config_.view.rgb = "none";
    }
    ~Supervised() override { test::remove_scratch(ranks_.world, survey_.folder); }

    const data::Galaxies& galaxies() const { return config_.modality == "image" ? *images_ : *spectra_; }

    // Logarithm of the flux of an image, and the id, which nothing tells.
    Labelled labelled() const
    {
        Labelled all{{"brightness", "id"}, galaxies().members(false), {}};
        std::vector<double> values;
        for (const auto number : all.numbers) {
            const auto id = galaxies()[number].object_id;
            const auto flux = test::tiny_image(id, survey_.image_size);
            values.push_back(std::log10(std::accumulate(flux.begin(), flux.end(), 0.0)));
            values.push_back(static_cast<double>(id));
        }
        all.values = at::tensor(values, at::kDouble).view({-1, 2});
        return all;
    }
    Labelled brightness() const
    {
        auto all = labelled();
        all.targets.pop_back();
        all.values = all.values.narrow(1, 0, 1).contiguous();
        return all;
    }

    std::string folder(const std::string& name) const { return survey_.folder + "/" + name; }

    // Lines of metrics of training into `folder(name)`; with `killed_after` it ends there without a word.
    std::vector<nlohmann::json> train_in(const std::string& name, test::Ranks& ranks, const Labelled& labels,
                                         train::TrainerConfig trainer, int killed_after = 0)
    {
        std::vector<nlohmann::json> lines;
        SupervisedTask task(config_, galaxies(), labels, ranks, 5);
        store::Output output(ranks.world, folder(name), {"train-supervised", {}, "tiny", {}}, false);
        Progress progress(false);
        trainer.clip_norm = 0;
        train::train(task, trainer,
                     {ranks.world, *ranks.tensors, output, progress,
                      [&](const nlohmann::json& line) {
                          lines.push_back(line);
                          if (int(lines.size()) == killed_after) throw Killed();
                      },
                      [](const std::string&) {}});
        return lines;
    }

    void expect_same_losses_alone_and_together(double tolerance)
    {
        const auto lines = train_in("together", ranks_, labelled(), {.steps = 4});
        if (ranks_.rank() != 0) return;
        auto alone = test::this_rank_alone();
        const auto expected = train_in("alone", alone, labelled(), {.steps = 4});
        ASSERT_EQ(lines.size(), expected.size());
        for (std::size_t i = 0; i < lines.size(); ++i) {
            for (const auto* key : {"loss", "val_loss"}) {
                ASSERT_EQ(lines[i].contains(key), expected[i].contains(key));
                if (!lines[i].contains(key)) continue;
                const double wanted = expected[i].at(key), found = lines[i].at(key);
                EXPECT_NEAR(found / wanted, 1, tolerance) << key << " " << i;
            }
        }
        EXPECT_TRUE(lines.back().contains("val_loss"));
    }

    test::Ranks ranks_;
    test::TinySurvey survey_;
    std::unique_ptr<data::Galaxies> images_, spectra_;
    SupervisedConfig config_;
};

// Batch normalisation over the few pixels of these images multiplies rounding by 10 to 100 a step.
TEST_F(Supervised, OnImagesGivesTheSameLossesOnAnyNumberOfRanks)
{
    expect_same_losses_alone_and_together(3e-3);
}

TEST_F(Supervised, OnSpectraGivesTheSameLossesOnAnyNumberOfRanks)
{
    config_.modality = "spectrum";
    expect_same_losses_alone_and_together(1e-4);
}

TEST_F(Supervised, InBfloat16IsNearToFloat32)
{
    for (const auto* modality : {"image", "spectrum"}) {
        config_.modality = modality;
        const auto loss = [&](const char* precision) {
            const auto name = std::string(modality) + precision;
            return train_in(name, ranks_, labelled(), {.steps = 1, .precision = precision})
                .front()
                .at("loss")
                .get<double>();
        };
        EXPECT_NEAR(loss("bf16") / loss("fp32"), 1, 0.1) << modality;  // 8 bits of mantissa, 18 layers
    }
}

TEST_F(Supervised, GoesOnAfterAKillAndEndsWithTheSameBits)
{
    const train::TrainerConfig steps{.steps = 5}, often{.steps = 5, .checkpoint_steps = 2};
    train_in("whole", ranks_, labelled(), steps);
    EXPECT_THROW(train_in("resumed", ranks_, labelled(), often, 3), Killed);
    ranks_.world.barrier();
    EXPECT_EQ(train_in("resumed", ranks_, labelled(), often).front().at("step"), 3);
    const nn::WeightsFile whole(folder("whole") + "/model.safetensors"),
        resumed(folder("resumed") + "/model.safetensors");
    for (const auto& name : whole.names()) {
        EXPECT_TRUE(whole.tensor(name).equal(resumed.tensor(name))) << name;
    }
}

TEST_F(Supervised, LearnsTheBrightnessOfImagesItWasNotFittedTo)
{
    const auto lines = train_in("learned", ranks_, brightness(), {.steps = 100});
    double best = 1e9;
    for (const auto& line : lines) best = std::min(best, line.value("val_loss", 1e9));
    EXPECT_LT(best, 0.3);  // of a variance of about 1

    // The published model is the best one and predicts the label itself, of galaxies on the test side too.
    if (ranks_.rank() != 0) return;
    const auto model = nn::load_regressor(nn::WeightsFile(folder("learned") + "/model.safetensors"));
    const auto test = images_->members(true);
    const auto batch = images_->read(test);
    const auto predicted = model->predict(data::centre_view(batch.images, config_.view));
    const auto truth = batch.images.to(at::kDouble).sum({1, 2, 3}).log10();
    const auto error = (predicted.select(1, 0) - truth).square().mean() / truth.var();
    EXPECT_LT(error.item<double>(), 0.4);
}

TEST_F(Supervised, ScalesItsTargetsAndHoldsOutAShareOfTheGalaxiesWhateverTheRest)
{
    const auto labels = labelled();
    const SupervisedTask task(config_, *images_, labels, ranks_, 5);
    const auto state = task.state();
    EXPECT_TRUE(state.at("target_mean").allclose(labels.values.mean(0)));
    EXPECT_TRUE(state.at("target_std").allclose(labels.values.std(0, true)));
    const auto metadata = task.model_metadata();
    EXPECT_EQ(metadata.at("targets"), "brightness,id");
    const auto fitted = std::stoi(metadata.at("fitted_galaxies")),
               held_out = std::stoi(metadata.at("held_out_galaxies"));
    EXPECT_EQ(fitted + held_out, int(labels.numbers.size()));
    EXPECT_NEAR(double(held_out) / double(labels.numbers.size()), 0.2, 0.12);  // three deviations of 80 draws
    EXPECT_EQ(task.steps_per_epoch(), fitted / 16);
}

TEST_F(Supervised, KeepsAConstantRateAsPublishedOrLetsItFollowACosine)
{
    config_.epochs = 10;
    const auto rate = [&](std::int64_t epoch) {
        const SupervisedTask task(config_, *images_, labelled(), ranks_, 5);
        return task.rates(epoch * task.steps_per_epoch()).learning_rate;
    };
    EXPECT_EQ(rate(5), 2e-3);
    config_.schedule = "cosine";
    EXPECT_NEAR(rate(5), 1e-3, 1e-12);
}

TEST_F(Supervised, OfWhatDoesNotFitIsRefused)
{
    const auto refused = [&] {
        EXPECT_THROW(SupervisedTask(config_, *images_, labelled(), ranks_, 5), ConfigError);
    };
    config_.group_size = 3;
    refused();
    config_.group_size = 8;
    config_.view.crop = 25;
    refused();
    config_.view.crop = 20;
    config_.modality = "spectrum";
    refused();
    config_.modality = "image";
    config_.batch_size = 96;
    refused();
    config_.batch_size = 16;
    auto one = brightness();
    one.numbers.resize(1);
    one.values = one.values.narrow(0, 0, 1);
    EXPECT_ANY_THROW(SupervisedTask(config_, *images_, one, ranks_, 5));
}

}  // namespace
}  // namespace astroclip::ssl
