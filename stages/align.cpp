#include <fmt/format.h>

#include "nn/encoder.hpp"
#include "ssl/clip_task.hpp"
#include "stages/compute.hpp"
#include "stages/training.hpp"

// align: pairs/ with both stores, two pretrained encoders -> aligned/.
namespace astroclip::stage {
namespace {

struct Options {
    std::string images, spectra, pairs, image_encoder, spectrum_encoder, output;
    ssl::ClipTaskConfig task;
    train::TrainerConfig trainer{.steps = 10'000, .clip_norm = 1.0, .patience = 10};
};

void bind(config::Section options, Options& o)
{
    options.option("images", o.images, "store of cutouts", config::runtime_only())
        .option("spectra", o.spectra, "store of spectra", config::runtime_only())
        .option("pairs", o.pairs, "which rows of the two are one galaxy", config::runtime_only())
        .option("image-encoder", o.image_encoder, "folder published by pretrain-image",
                config::runtime_only())
        .option("spectrum-encoder", o.spectrum_encoder, "folder published by pretrain-spectrum",
                config::runtime_only())
        .option("output", o.output, "folder of the aligned model to publish", config::runtime_only());
    ssl::bind(options, o.task);
    train::bind(options, o.trainer);
}

// The aligned model at step 0: the encoders as pretrained, the heads at the first values that the seed gives.
nn::AlignedModel first_model(const nn::WeightsFile& image, const nn::WeightsFile& spectrum,
                             const nn::HeadConfig& head, std::uint64_t seed)
{
    nn::AlignedModel model(nn::vit_config(image), nn::specformer_config(spectrum), head);
    nn::initialise(*model, seed);
    nn::load_strict(*model->image_encoder->backbone, image, "", {"dino_head.", "extra."});
    nn::load_strict(*model->spectrum_encoder->backbone, spectrum, "", {"extra."});
    return model;
}

void align(const Options& o, Context& context)
{
    const auto galaxies = open_galaxies(context, {.images = required("images", o.images),
                                                  .spectra = required("spectra", o.spectra),
                                                  .pairs = required("pairs", o.pairs)});
    auto inputs = nlohmann::json::object();
    const auto image = open_model(context, "image-encoder", o.image_encoder, inputs);
    const auto spectrum = open_model(context, "spectrum-encoder", o.spectrum_encoder, inputs);
    auto task = o.task;
    task.tokens = data::spectrum_tokens_config(spectrum->metadata(), "");
    if (task.tokens.leaves_out_bad_bins()) {
        galaxies->read_ivar();
    }
    const auto compute = start_compute(context);
    train_and_publish(
        context, compute, o.output, *galaxies, o.trainer,
        [&] {
            return std::make_unique<ssl::ClipTask>(
                task, first_model(*image, *spectrum, task.head, context.run.seed), nn::vit_config(*image),
                nn::specformer_config(*spectrum), *galaxies, *compute.ranks, context.run.seed);
        },
        inputs);
}

}  // namespace
}  // namespace astroclip::stage

int main(int argc, char** argv)
{
    using namespace astroclip::stage;
    return run<Options>(
        argc, argv,
        {.name = "align",
         .purpose = "align image and spectrum of the same galaxy in one embedding space",
         .examples = "  mpirun -n 2 astroclip-align --config run.cfg --images run/images --spectra "
                     "run/spectra --pairs run/pairs "
                     "\\\n      --image-encoder run/image-encoder --spectrum-encoder run/spectrum-encoder "
                     "--output run/aligned\n"
                     "  astroclip-align --config run.cfg --gather none --steps 100 --output aligned-local",
         .seeded = true},
        bind, align);
}
