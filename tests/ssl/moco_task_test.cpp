#include "ssl/moco_task.hpp"

#include <ATen/ATen.h>

#include "core/error.hpp"
#include "nn/encoder.hpp"
#include "support/training.hpp"

namespace astroclip::ssl {
namespace {

class Moco : public test::Training<MocoTask, MocoTaskConfig> {
protected:
    Moco() : Training("moco")
    {
        survey_.galaxies = 96;
        survey_.image_size = 56;
        write_stores(test::write_images);
        galaxies_ = std::make_unique<data::Galaxies>(data::Stores{.images = survey_.images()},
                                                     data::SplitRule{.test_fraction = 0.45});
        config_.batch_size = 32;
        config_.group_size = 8;
        config_.queue = 128;
        config_.learning_rate = 0.02;
        config_.epochs = 40;
        config_.encoder = {.layers = 18, .embed_dim = 16, .stem_width = 8};
        config_.views.crop = 48;
        config_.views.jitter = 3;
        trainer_.clip_norm = 0;
        trainer_.validate_steps = 2;
    }

    const std::vector<std::string> figures_ = {"loss", "top1", "effective_rank", "val_loss", "val_contrast"};
};

// Batch normalisation multiplies rounding from step to step, from 1e-16 to some 1e-12 here; other groups,
// keys or views change percents.
TEST_F(Moco, GivesTheSameLossesOnAnyNumberOfRanks)
{
    config_.precision = at::kDouble;
    trainer_.steps = 20;
    const auto lines = expect_the_same_alone_and_together(figures_, 1e-8);
    EXPECT_TRUE(std::any_of(lines.begin(), lines.end(),
                            [](const auto& line) { return line.contains("val_contrast"); }));
}

TEST_F(Moco, InFloat32GivesTheSameFirstLossesOnAnyNumberOfRanks)
{
    trainer_.steps = 5;
    expect_the_same_alone_and_together({"loss", "effective_rank"}, 1e-4);  // from 1e-7, as above
}

// Maps of 2 x 2 pixels at the end: LibTorch's bfloat16 convolutions have gradients that are not finite where
// maps are single pixels.
TEST_F(Moco, InSixteenBitsLearnsFromFiniteLossesThatBeginAsInFloat32)
{
    trainer_.steps = 5;
    const auto expected = train_in("fp32", ranks_);
    trainer_.precision = "bf16";
    const auto lines = train_in("bf16", ranks_);
    for (const auto& line : lines) {
        EXPECT_FALSE(line.contains("loss") && !std::isfinite(line.at("loss").get<double>())) << line;
    }
    // 2^-9 of each product, enlarged by the normalisation of twenty layers.
    EXPECT_NEAR(lines[0].at("loss").get<double>() / expected[0].at("loss").get<double>(), 1, 0.05);
    const nn::WeightsFile weights(model("bf16"));
    for (const auto& name : weights.names()) {
        EXPECT_TRUE(at::isfinite(weights.tensor(name)).all().item<bool>()) << name;
    }
}

TEST_F(Moco, GoesOnAfterAKillAndEndsWithTheSameBitsOfAModelThatEmbeds)
{
    trainer_.steps = 4;
    trainer_.checkpoint_steps = 2;
    const auto rest = expect_the_same_bits_after_a_kill(4);  // lines: 1, 2, validation, 3
    EXPECT_EQ(rest.front().at("step"), 3);
    const auto embedder = nn::load_embedder(model("resumed"), at::kCPU);
    EXPECT_EQ(embedder->image_width(), 64);
    EXPECT_EQ(embedder->image_size(), 48);
    EXPECT_TRUE(at::isfinite(embedder->embed_images(at::rand({2, 3, 48, 48}))).all().item<bool>());
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
    EXPECT_EQ(changed.sum().item<std::int64_t>(), 64);
    EXPECT_EQ(state.at("queue_ptr").item<std::int64_t>(), 64);
    EXPECT_EQ(state.at("encoder_q.bn1.num_batches_tracked").item<std::int64_t>(), 2);
    EXPECT_EQ(state.at("encoder_k.bn1.num_batches_tracked").item<std::int64_t>(), 2);
}

TEST_F(Moco, OfSizesThatDoNotDivideIsRefused)
{
    const auto refused = [&] { EXPECT_THROW(MocoTask(config_, *galaxies_, ranks_, 5), ConfigError); };
    config_.group_size = 3;
    refused();
    config_.group_size = 8;
    config_.queue = 40;
    refused();
    config_.queue = 128;
    config_.views.augmentations = "jcxx";
    refused();
    config_.views.augmentations = "gnrg";
    refused();
}

}  // namespace
}  // namespace astroclip::ssl
