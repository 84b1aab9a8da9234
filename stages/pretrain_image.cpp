#include <fmt/format.h>

#include "ssl/dino_task.hpp"
#include "stages/compute.hpp"
#include "stages/training.hpp"

// pretrain-image: images/ (and the split of pairs/) -> image-encoder/.
namespace astroclip::stage {
namespace {

struct Options {
    std::string images, pairs, output, method = "dino";
    ssl::DinoTaskConfig task;
    train::TrainerConfig trainer{.steps = 250'000, .clip_norm = 3.0};
};

void bind(config::Section options, Options& o)
{
    options.option("images", o.images, "store of cutouts", config::runtime_only())
        .option("pairs", o.pairs, "store of pairs, for the split of the survey (optional)",
                config::runtime_only())
        .option("output", o.output, "folder of the encoder to publish", config::runtime_only())
        .option("method", o.method, "how it is trained", config::one_of({"dino"}));
    ssl::bind(options, o.task);
    train::bind(options, o.trainer);
}

void pretrain_image(const Options& o, Context& context)
{
    const auto galaxies = open_galaxies(context, {.images = required("images", o.images), .pairs = o.pairs});
    const auto compute = start_compute(context);
    train_and_publish(context, compute, o.output, *galaxies, o.trainer, [&] {
        return std::make_unique<ssl::DinoTask>(o.task, *galaxies, *compute.ranks, context.run.seed);
    });
}

}  // namespace
}  // namespace astroclip::stage

int main(int argc, char** argv)
{
    using namespace astroclip::stage;
    return run<Options>(argc, argv,
                        {.name = "pretrain-image",
                         .purpose = "train an image encoder without labels",
                         .examples = "  mpirun -n 2 astroclip-pretrain-image --config run.cfg --images "
                                     "run/images --output run/image-encoder\n"
                                     "  astroclip-pretrain-image --images run/images --output vit --width "
                                     "192 --depth 6 --heads 3 --steps 500 "
                                     "--batch-size 32 --group-size 32",
                         .seeded = true},
                        bind, pretrain_image);
}
