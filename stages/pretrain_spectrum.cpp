#include "ssl/masked_spectrum_task.hpp"
#include "stages/compute.hpp"
#include "stages/training.hpp"

// pretrain-spectrum: spectra/ (and the split of pairs/) -> spectrum-encoder/.
namespace astroclip::stage {
namespace {

struct Options {
    std::string spectra, pairs, output;
    bool trust = false;
    ssl::MaskedSpectrumConfig task;
    train::TrainerConfig trainer{.steps = 30'000, .beta2 = 0.95, .clip_norm = 1.0};
};

void bind(config::Section options, Options& o)
{
    options.option("spectra", o.spectra, "store of spectra", config::runtime_only())
        .option("pairs", o.pairs, "store of pairs, for the split of the survey (optional)",
                config::runtime_only())
        .option("output", o.output, "folder of the encoder to publish", config::runtime_only())
        .option("trust", o.trust, "do not check the hashes of the stores' files", config::runtime_only());
    ssl::bind(options, o.task);
    train::bind(options, o.trainer);
}

void pretrain_spectrum(const Options& o, Context& context)
{
    const auto galaxies = open_galaxies(
        context, {.spectra = required("spectra", o.spectra), .pairs = o.pairs, .trust = o.trust});
    if (o.task.needs_ivar()) {
        galaxies->read_ivar();
    }
    const auto compute = start_compute(context);
    train_and_publish(context, compute, o.output, *galaxies, o.trainer, [&] {
        return std::make_unique<ssl::MaskedSpectrumTask>(o.task, *galaxies, *compute.ranks, context.run.seed);
    });
}

}  // namespace
}  // namespace astroclip::stage

int main(int argc, char** argv)
{
    using namespace astroclip::stage;
    return run<Options>(argc, argv,
                        {.name = "pretrain-spectrum",
                         .purpose = "train a spectrum encoder to predict masked parts of spectra",
                         .examples = "  mpirun -n 2 astroclip-pretrain-spectrum --config run.cfg --spectra "
                                     "run/spectra --pairs run/pairs "
                                     "--output run/spectrum-encoder\n"
                                     "  astroclip-pretrain-spectrum --spectra run/spectra --output "
                                     "specformer --width 192 --layers 4 --heads 3 "
                                     "--steps 500 --batch-size 32",
                         .seeded = true},
                        bind, pretrain_spectrum);
}
