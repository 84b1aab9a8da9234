#include "ssl/moco_task.hpp"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>

#include "core/error.hpp"
#include "nn/encoder.hpp"
#include "support/ranks.hpp"
#include "support/tiny_survey.hpp"
#include "train/trainer.hpp"

namespace astroclip::ssl {
namespace {

struct Killed {};

class Moco : public testing::Test {
protected:
    Moco() : ranks_(test::all_ranks())
    {
        survey_.folder = test::scratch_folder(ranks_.world, "moco");
        survey_.image_size = 24;
        survey_.galaxies = 64;
        test::write_images(ranks_.world, survey_);
        galaxies_ = std::make_unique<data::Galaxies>(data::Stores{.images = survey_.images()},
                                                     data::SplitRule{.test_fraction = 0.4});
        config_.batch_size = 16;
        config_.group_size = 4;
        config_.queue = 64;
        config_.learning_rate = 0.02;
        config_.epochs = 20;
        config_.encoder = {.layers = 18, .embed_dim = 16};
        config_.views.crop = 16;
        config_.views.jitter = 3;
    }
    ~Moco() override { test::remove_scratch(ranks_.world, survey_.folder); }

    std::string folder(const std::string& name) const { return survey_.folder + "/" + name; }

    // Lines of metrics of training into `folder(name)`; with `killed_after` it ends there without a word.
    std::vector<nlohmann::json> train_in(const std::string& name, test::Ranks& ranks, std::int64_t steps,
                                         std::int64_t checkpoint_steps = 1000, int killed_after = 0)
    {
        std::vector<nlohmann::json> lines;
        MocoTask task(config_, *galaxies_, ranks, 5);
        store::Output output(ranks.world, folder(name), {"pretrain-image", {}, "tiny", {}}, false);
        Progress progress(false);
        train::train(task, {.steps = steps, .clip_norm = 0, .checkpoint_steps = checkpoint_steps},
                     {ranks.world, *ranks.tensors, output, progress,
                      [&](const nlohmann::json& line) {
                          lines.push_back(line);
                          if (int(lines.size()) == killed_after) throw Killed();
                      },
                      [](const std::string&) {}});
        return lines;
    }

    void expect_same_losses_alone_and_together(std::int64_t steps, double tolerance)
    {
        const auto lines = train_in("together", ranks_, steps);
        if (ranks_.rank() != 0) return;
        auto alone = test::this_rank_alone();
        const auto expected = train_in("alone", alone, steps);
        ASSERT_EQ(lines.size(), expected.size());
        for (std::size_t i = 0; i < lines.size(); ++i) {
            for (const auto* key : {"loss", "val_contrast", "effective_rank"}) {
                ASSERT_EQ(lines[i].contains(key), expected[i].contains(key));
                if (!lines[i].contains(key)) continue;
                const double wanted = expected[i].at(key), found = lines[i].at(key);
                EXPECT_NEAR(found / wanted, 1, tolerance) << key << " " << i;
            }
        }
        EXPECT_TRUE(lines[2].contains("val_contrast"));
    }

    test::Ranks ranks_;
    test::TinySurvey survey_;
    std::unique_ptr<data::Galaxies> galaxies_;
    MocoTaskConfig config_;
};

// In float64: batch normalisation over the four pixels of these groups multiplies rounding by 10 to 100 a
// step. (In float32 the test of the stage shows the same on larger images.)
TEST_F(Moco, GivesTheSameLossesOnAnyNumberOfRanks)
{
    config_.precision = at::kDouble;
    expect_same_losses_alone_and_together(3, 1e-8);
}

TEST_F(Moco, GoesOnAfterAKillAndEndsWithTheSameBitsOfAModelThatEmbeds)
{
    train_in("whole", ranks_, 4);
    EXPECT_THROW(train_in("resumed", ranks_, 4, 2, 4), Killed);  // lines: 1, 2, validation, 3
    ranks_.world.barrier();
    const auto rest = train_in("resumed", ranks_, 4, 2);
    EXPECT_EQ(rest.front().at("step"), 3);
    const nn::WeightsFile whole(folder("whole") + "/model.safetensors"),
        resumed(folder("resumed") + "/model.safetensors");
    for (const auto& name : whole.names()) {
        EXPECT_TRUE(whole.tensor(name).equal(resumed.tensor(name))) << name;
    }
    const auto embedder = nn::load_embedder(folder("resumed") + "/model.safetensors", at::kCPU);
    EXPECT_EQ(embedder->image_width(), 512);
    EXPECT_EQ(embedder->image_size(), 16);
    EXPECT_TRUE(at::isfinite(embedder->embed_images(at::rand({2, 3, 16, 16}))).all().item<bool>());
}

TEST_F(Moco, FillsItsQueueFromAllRanksAndCountsBatchesOnce)
{
    MocoTask task(config_, *galaxies_, ranks_, 5);
    const auto start = task.state().at("queue").clone();
    task.seek(0);
    for (std::int64_t step = 0; step < 2; ++step) {
        task.fetch();
        task.forward(step);
        task.after_step(step);
    }
    const auto state = task.state();
    const auto changed = (state.at("queue") != start).any(0);
    EXPECT_EQ(changed.sum().item<std::int64_t>(), 32);
    EXPECT_EQ(state.at("queue_ptr").item<std::int64_t>(), 32);
    EXPECT_EQ(state.at("encoder_q.bn1.num_batches_tracked").item<std::int64_t>(), 2);
    EXPECT_EQ(state.at("encoder_k.bn1.num_batches_tracked").item<std::int64_t>(), 2);
}

TEST_F(Moco, OfSizesThatDoNotDivideIsRefused)
{
    const auto refused = [&] { EXPECT_THROW(MocoTask(config_, *galaxies_, ranks_, 5), ConfigError); };
    config_.group_size = 3;
    refused();
    config_.group_size = 4;
    config_.queue = 40;
    refused();
    config_.queue = 64;
    config_.views.augmentations = "jcxx";
    refused();
    config_.views.augmentations = "gnrg";
    refused();
}

}  // namespace
}  // namespace astroclip::ssl
