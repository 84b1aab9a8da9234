#include <ATen/ATen.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <set>

#include "core/log.hpp"
#include "data/rows.hpp"
#include "ssl/supervised_task.hpp"
#include "stages/compute.hpp"
#include "stages/labels.hpp"
#include "stages/training.hpp"

// train-supervised: images/ or spectra/ (and pairs/) and labels -> a network that predicts them.
namespace astroclip::stage {
namespace {

constexpr double nan = std::numeric_limits<double>::quiet_NaN();

struct Options {
    std::string images, spectra, pairs, labels, output, targets = "redshift";
    double match_radius_arcsec = 0.5;
    LabelRules label_rules;
    bool trust = false;
    ssl::SupervisedConfig task;
    train::TrainerConfig trainer{.steps = 0, .clip_norm = 0};

    bool of_images() const { return task.modality == "image"; }
};

void bind(config::Section options, Options& o)
{
    options.option("images", o.images, "store of cutouts", config::runtime_only())
        .option("spectra", o.spectra, "store of spectra; beside images it tells the redshifts",
                config::runtime_only())
        .option("pairs", o.pairs, "store of pairs: which rows are one galaxy, and the split of the survey",
                config::runtime_only())
        .option("labels", o.labels,
                "FITS, CSV or HDF5 table of properties, by TARGETID, object_id or position; empty: none",
                config::runtime_only())
        .option("output", o.output, "folder of the model to publish", config::runtime_only())
        .option(
            "targets", o.targets,
            "what is predicted, by one network: columns of the labels and 'redshift' (of the stores, where "
            "the fit does not warn), separated by commas")
        .option("match-radius", o.match_radius_arcsec, "of labels by position [arcsec]",
                config::between(0.001, 3600));
    bind(options, o.label_rules);
    options.option("trust", o.trust, "do not check the hashes of the stores' files", config::runtime_only());
    ssl::bind(options, o.task);
    train::bind(options, o.trainer);
}

// The galaxies of the training side that have what was given: images, spectra, or both.
struct Candidates {
    std::vector<std::int64_t> image_rows, spectrum_rows;  // -1: that store was not given
    survey::Sources sources;

    explicit Candidates(const data::Galaxies& galaxies)
    {
        const auto ra = galaxies.column("ra"), dec = galaxies.column("dec");
        for (const auto number : galaxies.members(false)) {
            const auto& galaxy = galaxies[number];
            if ((galaxies.has_images() && galaxy.image_row < 0) ||
                (galaxies.has_spectra() && galaxy.spectrum_row < 0)) {
                continue;
            }
            image_rows.push_back(galaxy.image_row);
            spectrum_rows.push_back(galaxy.spectrum_row);
            sources.object_id.push_back(galaxy.object_id);
            sources.ra.push_back(ra[static_cast<std::size_t>(number)]);
            sources.dec.push_back(dec[static_cast<std::size_t>(number)]);
        }
    }
};

// Of the spectra, or else of the images' catalogue; NaN where the fit warns.
std::vector<double> redshifts(const Options& o, const Candidates& of)
{
    if (o.spectra.empty()) {
        return data::read_scalars<double>(store::Reader(o.images, "images", true), "redshift", of.image_rows,
                                          nan);
    }
    const store::Reader spectra(o.spectra, "spectra", true);
    auto values = data::read_scalars<double>(spectra, "redshift", of.spectrum_rows, nan);
    const auto warnings = data::read_scalars<std::int64_t>(spectra, "zwarn", of.spectrum_rows, -1);
    for (std::size_t i = 0; i < values.size(); ++i) {
        if (warnings[i] > 0) values[i] = nan;
    }
    return values;
}

// The values of each target for the candidates; NaN where there is none.
std::vector<std::vector<double>> values_of(const std::vector<std::string>& targets, const Options& o,
                                           const Candidates& of)
{
    std::unique_ptr<Labels> labels;
    std::vector<std::vector<double>> all;
    for (const auto& target : targets) {
        if (target == "redshift") {
            all.push_back(redshifts(o, of));
            continue;
        }
        if (o.labels.empty()) {
            throw ConfigError(fmt::format("'labels' is not set: 'targets' asks for {}", target));
        }
        if (!labels) {
            labels = std::make_unique<Labels>(o.labels, of.sources, o.match_radius_arcsec, o.label_rules);
        }
        all.push_back(labels->of(target));
    }
    for (std::size_t i = 0; i < targets.size(); ++i) {
        const auto unknown =
            std::count_if(all[i].begin(), all[i].end(), [](double y) { return !std::isfinite(y); });
        if (unknown > 0) {
            log::info(
                "target '{}': {} of {} galaxies for training have none that is finite and sure, and are "
                "left out",
                targets[i], unknown, all[i].size());
        }
    }
    return all;
}

// The candidates of which all targets are known. Their numbers are those of the galaxies of the one store
// that is trained on, which lists its rows in order.
ssl::Labelled labelled_galaxies(const Options& o, const data::Galaxies& galaxies)
{
    const Candidates candidates(galaxies);
    ssl::Labelled labelled{split_list(o.targets), {}, {}};
    if (const std::set<std::string> different(labelled.targets.begin(), labelled.targets.end());
        different.empty() || different.size() < labelled.targets.size()) {
        throw ConfigError(
            fmt::format("'targets' = '{}': different names, separated by commas, expected", o.targets));
    }
    const auto values = values_of(labelled.targets, o, candidates);
    std::vector<double> known;
    for (std::size_t i = 0; i < candidates.sources.object_id.size(); ++i) {
        if (!std::all_of(values.begin(), values.end(),
                         [&](const auto& of) { return std::isfinite(of[i]); })) {
            continue;
        }
        labelled.numbers.push_back(o.of_images() ? candidates.image_rows[i] : candidates.spectrum_rows[i]);
        for (const auto& of : values) known.push_back(of[i]);
    }
    if (labelled.numbers.empty()) {
        throw DataError(o.labels.empty() ? o.of_images() ? o.images : o.spectra : o.labels,
                        fmt::format("none of the {} galaxies for training has all of {}",
                                    candidates.sources.object_id.size(), fmt::join(labelled.targets, ", ")));
    }
    labelled.values =
        at::tensor(known, at::kDouble).view({std::ssize(labelled.numbers), std::ssize(labelled.targets)});
    log::info("{} of {} galaxies for training are labelled", labelled.numbers.size(),
              candidates.sources.object_id.size());
    return labelled;
}

void train_supervised(const Options& o, Context& context)
{
    required(o.of_images() ? "images" : "spectra", o.of_images() ? o.images : o.spectra);
    const auto all = open_galaxies(
        context, {.images = o.images, .spectra = o.spectra, .pairs = o.pairs, .trust = o.trust});
    // What is not trained on is not read again.
    data::Stores stores{.pairs = o.pairs, .trust = true};
    (o.of_images() ? stores.images : stores.spectra) = o.of_images() ? o.images : o.spectra;
    const auto galaxies = open_galaxies(context, stores);
    ssl::Labelled labelled;
    auto inputs = all->content_ids();
    context.world.together([&] {
        labelled = labelled_galaxies(o, *all);
        if (!o.labels.empty()) inputs["labels"] = digest_of_file(o.labels);
    });
    auto task = o.task;
    if (galaxies->display_images()) task.view.rgb = "none";
    const auto compute = start_compute(context);
    const auto make_task = [&] {
        return std::make_unique<ssl::SupervisedTask>(task, *galaxies, labelled, *compute.ranks,
                                                     context.run.seed);
    };
    auto trainer = o.trainer;
    if (trainer.steps == 0) {
        context.world.together([&] { trainer.steps = task.epochs * make_task()->steps_per_epoch(); });
    }
    train_and_publish(context, compute, o.output, *galaxies, trainer, make_task, inputs);
}

}  // namespace
}  // namespace astroclip::stage

int main(int argc, char** argv)
{
    using namespace astroclip::stage;
    return run<Options>(
        argc, argv,
        {.name = "train-supervised",
         .purpose = "train a network on labels, to compare embeddings with",
         .examples =
             "  mpirun -n 2 astroclip-train-supervised --images run/images --spectra run/spectra --pairs "
             "run/pairs \\\n"
             "      --group-size 64 --output run/resnet18-redshift\n"
             "  astroclip-train-supervised --modality spectrum --spectra run/spectra --pairs run/pairs "
             "--labels truth.fits \\\n"
             "      --targets LOG_MSTAR,Z_MW,TAGE_MW,LOG_SSFR --output run/conv-att-properties",
         .seeded = true},
        bind, train_supervised);
}
