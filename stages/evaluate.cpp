// evaluate: embeddings/ + the paired galaxies of the stores (+ labels) -> how much the embeddings know,
// beside chance and what needs no learning.
#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <map>
#include <numeric>
#include <optional>

#include "catalogue/metrics.hpp"
#include "catalogue/neighbours.hpp"
#include "catalogue/photometry.hpp"
#include "catalogue/principal_components.hpp"
#include "catalogue/regression.hpp"
#include "core/hash.hpp"
#include "core/heartbeat.hpp"
#include "core/log.hpp"
#include "data/batches.hpp"
#include "data/image_augmentation.hpp"
#include "data/image_views.hpp"
#include "data/rows.hpp"
#include "nn/encoder.hpp"
#include "stages/compute.hpp"
#include "stages/stage.hpp"
#include "store/reader.hpp"
#include "survey/table.hpp"

namespace astroclip {
namespace {

struct Options {
    std::string embeddings, images, spectra, pairs, model, labels, output;
    std::string label_columns = "LOG_MSTAR,Z_MW,TAGE_MW,LOG_SSFR";
    int neighbours = 64;
    int bootstraps = 1000;
    int pixel_crop = 48;
    int pixel_components = 32;
    bool trust = false;
};

void bind(config::Section options, Options& o)
{
    using config::at_least;
    using config::runtime_only;
    options.option("embeddings", o.embeddings, "store of embeddings", runtime_only())
        .option("images", o.images, "store of cutouts that were embedded", runtime_only())
        .option("spectra", o.spectra, "store of spectra that were embedded", runtime_only())
        .option("pairs", o.pairs, "which rows of the two are one galaxy, and the split", runtime_only())
        .option("model", o.model, "folder of the model, for the same network untrained; empty: left out",
                runtime_only())
        .option("labels", o.labels,
                "FITS or CSV table with TARGETID or object_id and properties; empty: none", runtime_only())
        .option("output", o.output, "folder to publish", runtime_only())
        .option("label-columns", o.label_columns, "properties to predict, separated by commas")
        .option("neighbours", o.neighbours, "k of the regression", at_least(1))
        .option("bootstraps", o.bootstraps, "resamples behind each 95 % interval", at_least(10))
        .option("pixel-crop", o.pixel_crop, "side of the centre whose pixels are a baseline [pixel], even",
                at_least(2))
        .option("pixel-components", o.pixel_components, "principal components of those pixels", at_least(1))
        .option("trust", o.trust, "believe the hashes of the inputs without computing them", runtime_only());
}

const stage::Description description{
    "evaluate", "redshifts, properties and partners from embeddings, beside baselines and chance",
    "  mpirun -n 4 astroclip-evaluate --embeddings run/embeddings --images run/images --spectra run/spectra "
    "\\\n"
    "      --pairs run/pairs --model run/aligned --output run/evaluation\n"
    "  astroclip-evaluate --config run/config.cfg --labels truth.fits --embeddings run/embeddings --images "
    "run/images \\\n"
    "      --spectra run/spectra --pairs run/pairs --output run/evaluation",
    true};

constexpr std::int64_t component_sample =
    8192;  // training galaxies that the principal components are made of
constexpr std::array<std::int64_t, 3> recall_ks{1, 5, 10};

std::vector<std::string> split_list(const std::string& text)
{
    std::vector<std::string> parts;
    for (std::size_t begin = 0; begin < text.size();) {
        const auto end = std::min(text.find(',', begin), text.size());
        parts.push_back(text.substr(begin, end - begin));
        begin = end + 1;
    }
    return parts;
}

// The galaxies with both modalities that are in the catalogue: first those trained on, then those held out.
struct Sample {
    std::vector<std::int64_t> number;         // in Galaxies
    std::vector<std::int64_t> embedding_row;  // in the catalogue
    std::vector<std::int64_t> object_id, image_row, spectrum_row;
    std::int64_t train = 0;

    std::int64_t size() const { return static_cast<std::int64_t>(number.size()); }
    std::int64_t test() const { return size() - train; }

    Sample(const data::Galaxies& galaxies, const store::Reader& embeddings)
    {
        const auto ids = embeddings.column<std::int64_t>("object_id");
        const auto has_image = embeddings.column<std::int64_t>("has_image");
        const auto has_spectrum = embeddings.column<std::int64_t>("has_spectrum");
        std::vector<std::pair<std::int64_t, std::int64_t>> rows;  // id, row
        for (std::size_t row = 0; row < ids.size(); ++row) {
            if (has_image[row] && has_spectrum[row])
                rows.emplace_back(ids[row], static_cast<std::int64_t>(row));
        }
        std::sort(rows.begin(), rows.end());
        for (const bool test_side : {false, true}) {
            for (const auto each : galaxies.paired(test_side)) {
                add(each, galaxies[each], rows);
            }
            if (!test_side) train = size();
        }
        if (train == 0 || test() == 0) {
            throw DataError(embeddings.path(), fmt::format("holds {} training and {} test galaxies of the "
                                                           "pairs with both embeddings; both are needed",
                                                           train, test()));
        }
    }

private:
    void add(std::int64_t each, const data::Galaxy& galaxy,
             const std::vector<std::pair<std::int64_t, std::int64_t>>& rows)
    {
        const auto found =
            std::lower_bound(rows.begin(), rows.end(), std::pair(galaxy.object_id, std::int64_t{-1}));
        if (found == rows.end() || found->first != galaxy.object_id) {
            return;
        }
        number.push_back(each);
        embedding_row.push_back(found->second);
        object_id.push_back(galaxy.object_id);
        image_row.push_back(galaxy.image_row);
        spectrum_row.push_back(galaxy.spectrum_row);
    }
};

// The truth of one number for the sample; NaN where it is not known.
struct Target {
    std::string name;
    std::vector<double> truth;
};

// The label columns of the table, for the sample. Throws DataError if one is not there.
std::vector<Target> read_labels(const std::string& path, const std::string& columns, const Sample& sample)
{
    const auto table = survey::Table::open(path);
    const auto key = table->first_of({"object_id", "TARGETID"});
    if (key.empty()) {
        throw DataError(path, "has neither a column object_id nor TARGETID");
    }
    const auto ids = table->integers(key);
    std::map<std::int64_t, std::size_t> row_of;
    for (std::size_t row = 0; row < ids.size(); ++row) {
        row_of.emplace(ids[row], row);
    }
    std::vector<Target> targets;
    for (const auto& name : split_list(columns)) {
        const auto values = table->numbers(name);
        Target target{name, {}};
        for (const auto id : sample.object_id) {
            const auto found = row_of.find(id);
            target.truth.push_back(found == row_of.end() ? std::numeric_limits<double>::quiet_NaN()
                                                         : values[found->second]);
        }
        targets.push_back(target);
    }
    return targets;
}

struct Inputs {
    data::Galaxies galaxies;
    store::Reader embeddings, images, spectra;
    std::unique_ptr<nn::Embedder> untrained;  // null: no model was given
    Sample sample;
    std::vector<Target> labels;

    Inputs(const Options& o, at::Device device, std::uint64_t seed)
        : galaxies(data::Stores{required(o.images, "images"), required(o.spectra, "spectra"),
                                required(o.pairs, "pairs"), o.trust}),
          embeddings(required(o.embeddings, "embeddings"), "embeddings", o.trust),
          images(o.images, "images", true),  // its hashes are looked at by `galaxies`
          spectra(o.spectra, "spectra", true),
          sample(galaxies, embeddings)
    {
        require_source_of_embeddings();
        if (!o.model.empty()) {
            store::read_manifest(o.model);
            untrained = nn::untrained_embedder(o.model + "/model.safetensors", seed, device);
            if (untrained->image_size() == 0) untrained.reset();
        }
        if (!o.labels.empty()) {
            labels = read_labels(o.labels, o.label_columns, sample);
        }
    }

    nlohmann::json ids(const Options& o) const
    {
        auto all = galaxies.content_ids();
        all["embeddings"] = embeddings.content_id();
        if (untrained) all["model"] = store::content_id(o.model);
        if (!o.labels.empty()) {
            Digest digest;
            for (const auto& hash : file_block_hashes(o.labels)) digest.add(hash);
            all["labels"] = digest.hex();
        }
        return all;
    }

private:
    static const std::string& required(const std::string& path, const char* key)
    {
        if (path.empty()) {
            throw ConfigError(fmt::format("'{}' is not set: a store is needed", key));
        }
        return path;
    }

    void require_source_of_embeddings() const
    {
        const auto made_of = embeddings.manifest().at("request").value("inputs", nlohmann::json::object());
        const auto given = galaxies.content_ids();
        for (const auto& [name, id] : given.items()) {
            if (made_of.contains(name) && made_of.at(name) != id) {
                throw DataError(embeddings.path(),
                                fmt::format("was made from another store of {} than the one given", name));
            }
        }
    }
};

// What is computed from pixels and fluxes, one row a galaxy of the sample, on every rank.
struct Measured {
    at::Tensor untrained;      // [n, width]; undefined without a model
    at::Tensor pixels;         // [n, components]
    at::Tensor magnitudes;     // [n, 3] of the images' catalogue, g, r, z; undefined if it has no fluxes
    at::Tensor spectrum_mags;  // [n, 3] synthetic
};

at::Tensor gathered(const comm::World& world, const at::Tensor& local, std::int64_t width)
{
    const auto flat = local.to(at::kFloat).contiguous();
    const auto all =
        world.all_gather(std::span(flat.const_data_ptr<float>(), static_cast<std::size_t>(flat.numel())));
    const auto rows = static_cast<std::int64_t>(all.size()) / width;
    return at::from_blob(const_cast<float*>(all.data()), {rows, width}, at::kFloat).clone();
}

// The middle of the image in colours, averaged over 2 x 2 pixels. -> [B, 3 (crop/2)²]
at::Tensor centre_pixels(const at::Tensor& flux, std::int64_t crop)
{
    const auto even = std::min({crop, flux.size(2), flux.size(3)}) / 2 * 2;
    const auto colours = data::to_rgb(data::centre_crop(flux, even));
    return at::avg_pool2d(colours, {2, 2}).flatten(1);
}

// Principal components of a sample of the training galaxies, the same on all ranks, and every galaxy in them.
at::Tensor pixel_components(const at::Tensor& local, std::int64_t first, const Sample& sample,
                            const Options& o, const comm::World& world)
{
    const auto stride = (sample.train + component_sample - 1) / component_sample;
    std::vector<std::int64_t> chosen;
    for (std::int64_t i = 0; i < local.size(0); ++i) {
        if (first + i < sample.train && (first + i) % stride == 0) chosen.push_back(i);
    }
    const auto some = gathered(world, local.index_select(0, at::tensor(chosen, at::kLong)), local.size(1));
    const auto components = catalogue::PrincipalComponents::of(some, o.pixel_components);
    return gathered(world, components.project(local), components.directions.size(1));
}

// Galaxies are cut into the model's compute batches on the sample's own numbers; a rank owns whole batches,
// so the bits do not depend on how many ranks there are.
Measured measure(const Inputs& inputs, const Options& o, stage::Context& context)
{
    const auto& sample = inputs.sample;
    const auto& world = context.world;
    const auto batches = (sample.size() + nn::compute_batch - 1) / nn::compute_batch;
    const auto first = batches * world.rank() / world.size(),
               last = batches * (world.rank() + 1) / world.size();
    const auto& recipe = inputs.embeddings.schema().attributes;
    data::CentreViewConfig view;
    view.rgb = recipe.value("rgb", view.rgb);
    view.image_norm = recipe.value("image_norm", view.image_norm);
    view.crop = recipe.value("crop", view.crop);

    const auto side = std::min<std::int64_t>({o.pixel_crop, inputs.galaxies.image_shape()[1],
                                              inputs.galaxies.image_shape()[2]}) /
                      2;
    const auto width = inputs.untrained ? inputs.untrained->image_width() : 0;
    std::vector<at::Tensor> untrained{at::empty({0, width})}, pixels{at::empty({0, 3 * side * side})},
        mags{at::empty({0, 3}, at::kDouble)};
    context.progress.begin("measuring images and spectra", last - first, "batches");
    for (auto batch = first; batch < last; ++batch) {
        alive("measuring a batch");
        const auto begin = static_cast<std::size_t>(batch * nn::compute_batch);
        const auto count =
            std::min(sample.number.size() - begin, static_cast<std::size_t>(nn::compute_batch));
        const auto galaxies = inputs.galaxies.read(std::span(sample.number).subspan(begin, count));
        pixels.push_back(centre_pixels(galaxies.images, o.pixel_crop));
        const auto ivar =
            data::read_rows(inputs.spectra, "ivar", std::span(sample.spectrum_row).subspan(begin, count));
        mags.push_back(catalogue::magnitudes(
            catalogue::synthetic_flux(galaxies.spectra, ivar, inputs.spectra.axis("wavelength"))));
        if (inputs.untrained) {
            const auto whole = data::padded(data::centre_view(galaxies.images, view), nn::compute_batch);
            untrained.push_back(
                inputs.untrained->embed_images(whole).narrow(0, 0, static_cast<std::int64_t>(count)));
        }
        context.progress.update(batch - first + 1);
    }
    context.progress.end();

    Measured measured;
    measured.pixels = pixel_components(at::cat(pixels), first * nn::compute_batch, sample, o, world);
    measured.spectrum_mags = gathered(world, at::cat(mags), 3);
    if (inputs.untrained) {
        measured.untrained = gathered(world, at::cat(untrained), width);
    }
    return measured;
}

// g, r, z of the images' catalogue; NaN where it has none. Undefined if it has none at all.
at::Tensor catalogue_magnitudes(const Inputs& inputs)
{
    const auto& sample = inputs.sample;
    const auto flux = at::full({3, sample.size()}, std::numeric_limits<double>::quiet_NaN(), at::kDouble);
    const std::array<const char*, 3> names{"flux_g", "flux_r", "flux_z"};
    for (std::size_t band = 0; band < names.size(); ++band) {
        if (!inputs.images.schema().has(names[band])) {
            return {};
        }
        const auto values = data::read_scalars<double>(inputs.images, names[band], sample.image_row,
                                                       std::numeric_limits<double>::quiet_NaN());
        std::copy(values.begin(), values.end(),
                  flux.data_ptr<double>() + static_cast<std::int64_t>(band) * sample.size());
    }
    return flux.isfinite().any().item<bool>() ? catalogue::magnitudes(flux.t()) : at::Tensor();
}

// A description of the galaxies that properties are predicted from.
struct Features {
    std::string name;
    at::Tensor values;  // [n, d]
    bool standardise = true;
};

at::Tensor raw_embedding(const Inputs& inputs, const std::string& modality)
{
    const auto& rows = inputs.sample.embedding_row;
    const auto unit = data::read_rows(inputs.embeddings, modality + "_embedding", rows);
    return unit * data::read_rows(inputs.embeddings, modality + "_embedding_norm", rows).unsqueeze(1);
}

std::vector<Features> all_features(const Inputs& inputs, const Measured& measured)
{
    std::vector<Features> all{{"image", raw_embedding(inputs, "image")},
                              {"spectrum", raw_embedding(inputs, "spectrum")}};
    if (measured.untrained.defined()) {
        all.push_back({"untrained", measured.untrained});
    }
    if (measured.magnitudes.defined()) {
        all.push_back({"magnitudes", measured.magnitudes.nan_to_num(27.5)});
    }
    // Distances in the components are distances of the pictures themselves, which standardising would undo.
    all.push_back({"pixels", measured.pixels, false});
    return all;
}

struct Rows {
    std::vector<std::int64_t> train, test;  // of the sample, where the target is known
};

Rows known_rows(const Target& target, const Sample& sample)
{
    Rows rows;
    for (std::int64_t i = 0; i < sample.size(); ++i) {
        if (std::isfinite(target.truth[static_cast<std::size_t>(i)])) {
            (i < sample.train ? rows.train : rows.test).push_back(i);
        }
    }
    return rows;
}

std::vector<double> chosen(const std::vector<double>& values, const std::vector<std::int64_t>& rows)
{
    std::vector<double> some;
    for (const auto row : rows) some.push_back(values[static_cast<std::size_t>(row)]);
    return some;
}

std::vector<double> predict(const Features& features, const Target& target, const Rows& rows,
                            const Options& o, const comm::World& world)
{
    const auto result = catalogue::knn_regression(
        world, features.values.index_select(0, at::tensor(rows.train)),
        at::tensor(chosen(target.truth, rows.train), at::kDouble),
        features.values.index_select(0, at::tensor(rows.test)), {o.neighbours, features.standardise});
    const auto flat = result.predicted.flatten().contiguous();
    return {flat.const_data_ptr<double>(), flat.const_data_ptr<double>() + flat.numel()};
}

nlohmann::json score(const std::vector<double>& truth, const std::vector<double>& predicted, bool redshift,
                     const Options& o, std::uint64_t seed)
{
    const auto interval = catalogue::bootstrap_r2(truth, predicted, seed, o.bootstraps);
    nlohmann::json scores = {{"r2", catalogue::r2(truth, predicted)},
                             {"r2_low", interval.low},
                             {"r2_high", interval.high},
                             {"n", truth.size()}};
    if (redshift) {
        const auto errors = catalogue::redshift_errors(truth, predicted);
        scores["bias"] = catalogue::bias(errors);
        scores["sigma_nmad"] = catalogue::sigma_nmad(errors);
        scores["outlier_fraction"] = catalogue::outlier_fraction(errors);
    }
    return scores;
}

Target redshift_target(const Inputs& inputs)
{
    const auto& rows = inputs.sample.embedding_row;
    Target target{"redshift", data::read_scalars<double>(inputs.embeddings, "z_spec", rows,
                                                         std::numeric_limits<double>::quiet_NaN())};
    const auto warnings = data::read_scalars<std::int64_t>(inputs.embeddings, "zwarn", rows, -1);
    for (std::size_t i = 0; i < warnings.size(); ++i) {
        if (warnings[i] > 0) {  // a redshift in doubt is no truth
            target.truth[i] = std::numeric_limits<double>::quiet_NaN();
        }
    }
    return target;
}

// photo_z of the report, and the table of predictions behind the scatter plot.
struct Redshifts {
    nlohmann::json scores;
    std::string csv;
};

Redshifts redshifts(const std::vector<Features>& features, const Target& target, const Sample& sample,
                    const Options& o, const stage::Context& context)
{
    const auto rows = known_rows(target, sample);
    if (rows.train.empty() || rows.test.empty()) {
        log::warn("no redshifts without a warning: photo-z is left out");
        return {nlohmann::json::object(), ""};
    }
    const auto truth = chosen(target.truth, rows.test);
    Redshifts result{nlohmann::json::object(), "object_id,z_true"};
    std::vector<std::vector<double>> predictions;
    for (const auto& each : features) {
        predictions.push_back(predict(each, target, rows, o, context.world));
        result.scores[each.name] = score(truth, predictions.back(), true, o, context.run.seed);
        result.csv += "," + each.name;
    }
    result.csv += "\n";
    for (std::size_t i = 0; i < truth.size(); ++i) {
        result.csv +=
            fmt::format("{},{:.8f}", sample.object_id[static_cast<std::size_t>(rows.test[i])], truth[i]);
        for (const auto& values : predictions) {
            result.csv += fmt::format(",{:.8f}", values[i]);
        }
        result.csv += "\n";
    }
    return result;
}

nlohmann::json properties(const std::vector<Features>& features, const std::vector<Target>& targets,
                          const Sample& sample, const Options& o, const stage::Context& context)
{
    auto all = nlohmann::json::object();
    for (const auto& target : targets) {
        const auto rows = known_rows(target, sample);
        if (rows.train.empty() || rows.test.empty()) {
            log::warn("no galaxy has the label '{}': it is left out", target.name);
            continue;
        }
        const auto truth = chosen(target.truth, rows.test);
        for (const auto& each : features) {
            all[target.name][each.name] =
                score(truth, predict(each, target, rows, o, context.world), false, o, context.run.seed);
        }
    }
    return all;
}

nlohmann::json recall_json(const std::vector<std::int64_t>& places, const std::string& prefix)
{
    nlohmann::json json;
    for (const auto k : recall_ks) {
        json[fmt::format("{}recall_at_{}", prefix, k)] = catalogue::recall_at_k(places, k);
    }
    json[prefix + "median_rank"] = catalogue::median({places.begin(), places.end()});
    return json;
}

// Is the true partner found among the held-out galaxies of the other modality?
nlohmann::json retrieval(const std::string& from, const std::string& to, const Inputs& inputs,
                         const Measured& measured, stage::Compute& compute, const comm::World& world)
{
    const auto& sample = inputs.sample;
    const auto count = sample.test();
    const auto test_rows = std::span(sample.embedding_row).subspan(static_cast<std::size_t>(sample.train));
    const auto queries =
        data::read_rows(inputs.embeddings, from + "_embedding", test_rows).to(compute.device);
    const auto first = count * world.rank() / world.size(), last = count * (world.rank() + 1) / world.size();
    const auto mine =
        test_rows.subspan(static_cast<std::size_t>(first), static_cast<std::size_t>(last - first));
    const catalogue::CatalogueShard shard{
        data::read_rows(inputs.embeddings, to + "_embedding", mine).to(compute.device), first};
    std::vector<std::int64_t> partners(static_cast<std::size_t>(count));
    std::iota(partners.begin(), partners.end(), 0);
    const auto places = catalogue::partner_places(*compute.ranks, shard, queries, partners);

    auto json = recall_json(places, "");
    const auto chance = std::min(1.0, 10.0 / static_cast<double>(count));
    json["n"] = count;
    json["chance"] = chance;
    json["times_chance"] = json["recall_at_10"].get<double>() / chance;
    if (measured.magnitudes.defined()) {
        const auto images = measured.magnitudes, spectra = measured.spectrum_mags;
        const bool image_asks = from == "image";
        const auto& one = image_asks ? images : spectra;
        const auto& other = image_asks ? spectra : images;
        const auto scale =
            catalogue::ColourScale::of(one.narrow(0, 0, sample.train), other.narrow(0, 0, sample.train));
        const auto known = catalogue::photometric_places(world, one.narrow(0, sample.train, count),
                                                         other.narrow(0, sample.train, count), scale);
        json.update(recall_json(known, "photometry_"));
        json["photometry"] = json["photometry_recall_at_10"];
    }
    return json;
}

nlohmann::json all_scores(const Inputs& inputs, const Options& o, stage::Compute& compute,
                          stage::Context& context, std::string& predictions)
{
    auto measured = measure(inputs, o, context);
    measured.magnitudes = catalogue_magnitudes(inputs);
    context.stop_if_requested("evaluation: nothing is lost but this stage's own minutes");
    const auto features = all_features(inputs, measured);
    const auto& sample = inputs.sample;
    const auto redshift = redshifts(features, redshift_target(inputs), sample, o, context);
    predictions = redshift.csv;
    nlohmann::json scores = {
        {"photo_z", redshift.scores},
        {"retrieval",
         {{"is", retrieval("image", "spectrum", inputs, measured, compute, context.world)},
          {"si", retrieval("spectrum", "image", inputs, measured, compute, context.world)}}},
        {"sample", {{"train", sample.train}, {"test", sample.test()}}},
        {"neighbours", o.neighbours},
        {"bootstraps", o.bootstraps},
        {"outlier_limit", 0.05}};
    if (!inputs.labels.empty()) {
        scores["properties"] = properties(features, inputs.labels, sample, o, context);
    }
    return scores;
}

void evaluate(const Options& o, stage::Context& context)
{
    const at::NoGradGuard no_grad;
    auto compute = stage::start_compute(context);
    std::optional<Inputs> inputs;
    context.world.together([&] { inputs.emplace(o, compute.device, context.run.seed); });
    const auto& sample = inputs->sample;
    if (context.dry_run()) {
        context.print(fmt::format("evaluate: {} training and {} test galaxies", sample.train, sample.test()));
        return;
    }
    auto& output = context.open_output(o.output, inputs->ids(o));
    std::string predictions;
    const auto scores = all_scores(*inputs, o, compute, context, predictions);
    context.world.on_root([&] {
        store::publish_text(output.path() + "/evaluation.json", scores.dump(1) + "\n");
        store::publish_text(output.path() + "/predictions.csv", predictions);
    });
    output.publish({{"kind", "evaluation"}, {"sample", scores.at("sample")}},
                   {"evaluation.json", "predictions.csv"});
    for (const auto* mode : {"is", "si"}) {
        const auto& of = scores.at("retrieval").at(mode);
        log::info("{}: the true partner is among the first 10 for {:.1f} % of {} ({:.1f} times chance)", mode,
                  100 * of.at("recall_at_10").get<double>(), of.at("n").get<std::int64_t>(),
                  of.at("times_chance").get<double>());
    }
    context.print(output.path());
}

}  // namespace
}  // namespace astroclip

int main(int argc, char** argv)
{
    return astroclip::stage::run<astroclip::Options>(argc, argv, astroclip::description, astroclip::bind,
                                                     astroclip::evaluate);
}
