#include <fmt/format.h>

#include "ssl/dino_task.hpp"
#include "ssl/moco_task.hpp"
#include "stages/compute.hpp"
#include "stages/training.hpp"

// pretrain-image: images/ (and the split of pairs/) -> image-encoder/.
namespace astroclip::stage {
namespace {

struct Options {
    std::string images, pairs, output, method = "dino";
    bool trust = false;
    std::int64_t batch_size = 0, group_size = 0;  // 0, as further down: as the method was published
    ssl::DinoTaskConfig dino;
    ssl::MocoTaskConfig moco;
    train::TrainerConfig trainer{.steps = 0, .clip_norm = -1};
};

void bind(config::Section options, Options& o)
{
    options.option("images", o.images, "store of cutouts", config::runtime_only())
        .option("pairs", o.pairs, "store of pairs, for the split of the survey (optional)",
                config::runtime_only())
        .option("output", o.output, "folder of the encoder to publish", config::runtime_only())
        .option("trust", o.trust, "do not check the hashes of the stores' files", config::runtime_only())
        .option("method", o.method,
                "how it is trained: dino (DINOv2 on a vision transformer) or moco (MoCo v2 on a ResNet, its "
                "options begin with 'moco:')",
                config::one_of({"dino", "moco"}))
        .option("batch-size", o.batch_size,
                "images a step, over all ranks; 0: as published (dino 1440, moco 32768)", config::at_least(0))
        .option(
            "group-size", o.group_size,
            "images whose samples are coupled (dino: depth, masks, neighbours; moco: batch normalisation); "
            "a rank owns whole groups; 0: as published (dino 72, moco 256)",
            config::at_least(0));
    ssl::bind(options, o.dino);
    ssl::bind(options, o.moco);
    train::bind(options, o.trainer);
}

// The task's sizes, and what of the trainer's settings was left to the method.
template <typename Task>
void settle(const Options& o, Task& task, train::TrainerConfig& trainer, double clip_norm)
{
    if (o.batch_size > 0) task.batch_size = o.batch_size;
    if (o.group_size > 0) task.group_size = o.group_size;
    if (trainer.clip_norm < 0) trainer.clip_norm = clip_norm;
}

void pretrain_dino(const Options& o, Context& context, const Compute& compute, const data::Galaxies& galaxies)
{
    auto task = o.dino;
    auto trainer = o.trainer;
    settle(o, task, trainer, 3.0);
    if (trainer.steps == 0) trainer.steps = 250'000;
    task.views.fluxes = !galaxies.display_images();
    train_and_publish(context, compute, o.output, galaxies, trainer, [&] {
        return std::make_unique<ssl::DinoTask>(task, galaxies, *compute.ranks, context.run.seed);
    });
}

void pretrain_moco(const Options& o, Context& context, const Compute& compute, const data::Galaxies& galaxies)
{
    auto task = o.moco;
    auto trainer = o.trainer;
    settle(o, task, trainer, 0.0);
    if (galaxies.display_images()) {
        for (auto* steps : {&task.views.augmentations, &task.views.validation}) {
            *steps = data::without_flux_steps(*steps);
        }
    }
    const auto members = static_cast<std::int64_t>(galaxies.members(false).size());
    if (trainer.steps == 0)
        trainer.steps = std::max<std::int64_t>(task.epochs * (members / task.batch_size), 1);
    train_and_publish(context, compute, o.output, galaxies, trainer, [&] {
        return std::make_unique<ssl::MocoTask>(task, galaxies, *compute.ranks, context.run.seed);
    });
}

void pretrain_image(const Options& o, Context& context)
{
    const auto galaxies =
        open_galaxies(context, {.images = required("images", o.images), .pairs = o.pairs, .trust = o.trust});
    const auto compute = start_compute(context);
    const auto pretrain = o.method == "moco" ? pretrain_moco : pretrain_dino;
    pretrain(o, context, compute, *galaxies);
}

}  // namespace
}  // namespace astroclip::stage

int main(int argc, char** argv)
{
    using namespace astroclip::stage;
    return run<Options>(
        argc, argv,
        {.name = "pretrain-image",
         .purpose = "train an image encoder without labels",
         .examples = "  mpirun -n 2 astroclip-pretrain-image --config run.cfg --images "
                     "run/images --output run/image-encoder\n"
                     "  astroclip-pretrain-image --images run/images --output resnet --method "
                     "moco --resnet-layers 18 --batch-size 64 --group-size 64 "
                     "--queue 4096 --learning-rate 0.03 --epochs 20",
         .seeded = true},
        bind, pretrain_image);
}
