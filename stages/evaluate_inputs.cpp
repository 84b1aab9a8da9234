#include "stages/evaluate_inputs.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <set>

#include "catalogue/morphology.hpp"
#include "core/error.hpp"
#include "core/log.hpp"
#include "data/rows.hpp"
#include "stages/evaluate_case.hpp"
#include "store/publication.hpp"

namespace astroclip::evaluate {
namespace {

constexpr double nan = std::numeric_limits<double>::quiet_NaN();

std::vector<double> shares_of(const std::string& list)
{
    std::vector<double> shares;
    if (list == "none") {
        return shares;
    }
    for (const auto& word : stage::split_list(list)) {
        try {
            shares.push_back(std::stod(word));
        } catch (const std::exception&) {
            shares.push_back(nan);
        }
        if (!(shares.back() > 0 && shares.back() <= 1)) {
            throw ConfigError(fmt::format("'label-fractions': '{}' is not a share above 0, up to 1", word));
        }
    }
    return shares;
}

const std::string& required(const std::string& path, const char* key)
{
    if (path.empty()) {
        throw ConfigError(fmt::format("'{}' is not set: a store is needed", key));
    }
    return path;
}

// NAME=FOLDER,... of an option.
std::vector<std::pair<std::string, std::string>> named_folders(const char* option, const std::string& list)
{
    std::vector<std::pair<std::string, std::string>> all;
    for (const auto& word : stage::split_list(list)) {
        const auto equals = word.find('=');
        if (equals == std::string::npos || equals == 0) {
            throw ConfigError(fmt::format("'{}': NAME=FOLDER expected, found '{}'", option, word));
        }
        all.emplace_back(word.substr(0, equals), word.substr(equals + 1));
    }
    return all;
}

// How long a model was trained, and when its validation loss was least.
nlohmann::json epochs_of(const nlohmann::json& manifest)
{
    const auto& content = manifest.at("content");
    const auto an_epoch = std::stod(content.at("metadata").value("steps_per_epoch", "1"));
    const auto epochs = [&](const nlohmann::json& steps) { return steps.get<double>() / an_epoch; };
    const auto& best =
        content.contains("validation") ? content.at("validation").at("step") : content.at("steps");
    return {{"trained", epochs(content.at("steps"))}, {"best", epochs(best)}};
}

// Rows of a catalogue that have all these modalities, by id: (id, row), ascending.
std::vector<std::pair<std::int64_t, std::int64_t>> complete_rows(const store::Reader& embeddings,
                                                                 const std::vector<std::string>& modalities)
{
    const auto ids = embeddings.column<std::int64_t>("object_id");
    std::vector<char> complete(ids.size(), 1);
    for (const auto& modality : modalities) {
        const auto has = embeddings.column<std::uint8_t>("has_" + modality);
        for (std::size_t row = 0; row < has.size(); ++row) complete[row] = complete[row] && has[row];
    }
    std::vector<std::pair<std::int64_t, std::int64_t>> rows;
    for (std::size_t row = 0; row < ids.size(); ++row) {
        if (complete[row]) rows.emplace_back(ids[row], static_cast<std::int64_t>(row));
    }
    std::sort(rows.begin(), rows.end());
    return rows;
}

struct Mark {
    double value = nan;
    std::int64_t n = 0;  // 0: none
};

// The commonest of the finite values, if it looks like a mark of those without one: more than 5 % have it,
// and it is such a number as others use for that, or hardly any two of the rest are alike.
Mark suspected_mark(const std::vector<double>& values)
{
    std::map<double, std::int64_t> times;
    std::int64_t known = 0;
    for (const auto value : values) {
        if (!std::isfinite(value)) continue;
        ++times[value];
        ++known;
    }
    const auto most = std::max_element(times.begin(), times.end(),
                                       [](const auto& a, const auto& b) { return a.second < b.second; });
    if (times.size() < 2 || 20 * most->second <= known || most->second < 2) {
        return {};
    }
    const auto rest = known - most->second;
    const bool continuous = 2 * std::ssize(times) > rest;
    const auto size = std::abs(most->first);
    const bool usual = size == 99 || size == 999 || size == 9999;
    return continuous || usual ? Mark{most->first, most->second} : Mark{};
}

std::vector<std::string> modalities_of(const store::Reader& embeddings)
{
    std::vector<std::string> some;
    for (const std::string modality : {"image", "spectrum"}) {
        const auto has = embeddings.column<std::uint8_t>("has_" + modality);
        if (std::any_of(has.begin(), has.end(), [](auto each) { return each != 0; }))
            some.push_back(modality);
    }
    return some;
}

}  // namespace

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
                "FITS, CSV or HDF5 table of properties, by TARGETID, object_id or position; empty: none",
                runtime_only())
        .option("morphology", o.morphology,
                "such a table of Galaxy Zoo DECaLS votes (GZD-5), by position or id; empty: none",
                runtime_only())
        .option("compare", o.compare,
                "stores of embeddings of the same galaxies by other models: NAME=FOLDER,...", runtime_only())
        .option("supervised", o.supervised,
                "models of astroclip-train-supervised, which predict the redshift or properties: "
                "NAME=FOLDER,...; one NAME may have a model for each",
                runtime_only())
        .option("output", o.output, "folder to publish", runtime_only())
        .option("label-columns", o.label_columns, "properties to predict, separated by commas")
        .option("match-radius", o.match_radius_arcsec, "of labels by position [arcsec]",
                config::between(0.001, 3600));
    stage::bind(options, o.label_rules);
    options
        .option("label-fractions", o.label_fractions,
                "also from these shares of the training labels, separated by commas; or none")
        .option("few-shot-epochs", o.few_shot_epochs, "of the small networks; 0: none are trained",
                at_least(0))
        .option("photometry-epochs", o.photometry_epochs,
                "of the one on photometry, of which the epoch of least validation loss counts", at_least(1))
        .option("photometry-patience", o.photometry_patience,
                "epochs without a smaller validation loss after which it ends before; 0: it never does",
                at_least(0))
        .option("flows", o.flows, "of the ensemble that estimates posteriors of the properties; 0: none",
                at_least(0))
        .option("morphology-epochs", o.morphology_epochs, "of the classifiers", at_least(1))
        .option("double-softmax", o.double_softmax, "classifiers as published: softmax of the softmax")
        .option("neighbours", o.neighbours, "k of the regression", at_least(1))
        .option("predict", o.predict,
                "also redshift and properties of every galaxy of the catalogue that has an image, in "
                "OUTPUT/predictions")
        .option("bootstraps", o.bootstraps, "resamples behind each 95 % interval", at_least(10))
        .option("pixel-crop", o.pixel_crop, "side of the centre whose pixels are a baseline [pixel], even",
                at_least(2))
        .option("pixel-components", o.pixel_components, "principal components of those pixels", at_least(1))
        .option("trust", o.trust, "believe the hashes of the inputs without computing them", runtime_only());
}

Sample::Sample(const data::Galaxies& galaxies, const store::Reader& embeddings)
    : modalities(modalities_of(embeddings))
{
    if (modalities.empty()) {
        throw DataError(embeddings.path(), "embeds no image and no spectrum");
    }
    const auto rows = complete_rows(embeddings, modalities);
    for (const bool test_side : {false, true}) {
        for (const auto each : galaxies.paired(test_side)) {
            add(each, galaxies[each], rows);
        }
        if (!test_side) train = size();
    }
    if (train == 0 || test() == 0) {
        throw DataError(embeddings.path(),
                        fmt::format("holds {} training and {} test galaxies of the pairs with "
                                    "an embedding of {}; both are needed",
                                    train, test(), fmt::join(modalities, " and ")));
    }
    ra = data::read_scalars<double>(embeddings, "ra", embedding_row, nan);
    dec = data::read_scalars<double>(embeddings, "dec", embedding_row, nan);
}

bool Sample::has(const std::string& modality) const
{
    return std::find(modalities.begin(), modalities.end(), modality) != modalities.end();
}

void Sample::add(std::int64_t each, const data::Galaxy& galaxy,
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

Inputs::Inputs(const Options& o, at::Device device, std::uint64_t seed)
    : galaxies(data::Stores{required(o.images, "images"), required(o.spectra, "spectra"),
                            required(o.pairs, "pairs"), o.trust}),
      embeddings(required(o.embeddings, "embeddings"), "embeddings", o.trust),
      images(o.images, "images", true),  // its hashes are looked at by `galaxies`
      spectra(o.spectra, "spectra", true),
      sample(galaxies, embeddings)
{
    require_source_of_embeddings();
    label_shares = shares_of(o.label_fractions);
    if (!o.model.empty()) {
        store::read_manifest(o.model);
        untrained = nn::untrained_embedder(o.model + "/model.safetensors", seed, device);
        if (untrained->image_size() == 0) untrained.reset();
    }
    read_labels(o);
    open_comparisons(o);
    open_supervised(o, device);
}

void Inputs::read_labels(const Options& o)
{
    if (!o.morphology.empty()) {
        votes = std::make_unique<stage::Labels>(o.morphology, sample.sources(), o.match_radius_arcsec,
                                                stage::LabelRules{.selection = "all"});
        // Nothing can be asked without it: that is said before anything is computed.
        votes->of(catalogue::galaxy_zoo_questions().front().votes_column());
    }
    if (o.labels.empty()) {
        return;
    }
    const stage::Labels labels(o.labels, sample.sources(), o.match_radius_arcsec, o.label_rules);
    label_facts = labels.facts();
    for (const auto& name : stage::split_list(o.label_columns)) {
        properties.push_back({name, labels.of(name)});
        const auto& truth = properties.back().truth;
        const auto known =
            std::count_if(truth.begin(), truth.end(), [](double y) { return std::isfinite(y); });
        label_facts["known"][name] = known;
        label_facts["left_out"][name] = sample.size() - known;
        if (known < sample.size()) {
            log::info("label '{}': {} of {} galaxies have none, or none that is finite, and are left out",
                      name, sample.size() - known, sample.size());
        }
        if (const auto mark = suspected_mark(truth); mark.n > 0) {
            label_facts["repeated"][name] = {{"value", mark.value}, {"n", mark.n}};
        }
    }
    for (const auto& [name, reason] : unscored(properties, sample)) label_facts["unused"][name] = reason;
}

void Inputs::warn_of_labels() const
{
    if (properties.empty()) {
        return;
    }
    const auto told = [&](const char* what) { return label_facts.value(what, nlohmann::json::object()); };
    const auto repeated = told("repeated"), unused = told("unused");
    for (const auto& [name, mark] : repeated.items()) {
        log::warn(
            "label '{}': {} of {} galaxies have the value {}: if it marks those without one, they should "
            "have NaN or an empty field",
            name, mark.at("n").get<std::int64_t>(), label_facts.at("known").at(name).get<std::int64_t>(),
            mark.at("value").get<double>());
    }
    for (const auto& [name, reason] : unused.items()) {
        log::warn("label '{}' is left out: {}", name, reason.get<std::string>());
    }
    std::vector<std::string> used;
    for (const auto& target : properties) {
        if (!unused.contains(target.name)) used.push_back(target.name);
    }
    const auto published = stage::split_list(Options{}.label_columns);
    if (!used.empty() && !std::is_permutation(used.begin(), used.end(), published.begin(), published.end())) {
        log::warn("the mean R2 of the properties is that of {}; the published one is that of {}",
                  fmt::join(used, ", "), fmt::join(published, ", "));
    }
}

// The rows of another catalogue that hold our sample, all of it.
void Inputs::open_comparisons(const Options& o)
{
    std::set<std::string> names;
    for (const auto& [name, folder] : named_folders("compare", o.compare)) {
        if (!names.insert(name).second) {
            throw ConfigError(fmt::format("'compare': two catalogues are called '{}'", name));
        }
        Comparison one{name, store::Reader(folder, "embeddings", o.trust), {}};
        const auto rows = complete_rows(one.embeddings, {});
        for (const auto id : sample.object_id) {
            const auto found = std::lower_bound(rows.begin(), rows.end(), std::pair(id, std::int64_t{-1}));
            if (found == rows.end() || found->first != id) {
                throw DataError(one.embeddings.path(),
                                fmt::format("lacks object {}, which is part of the evaluation", id));
            }
            one.row.push_back(found->second);
        }
        comparisons.push_back(std::move(one));
    }
}

// Models that were trained by our split: what they are asked for, they never saw.
void Inputs::open_supervised(const Options& o, at::Device device)
{
    std::set<std::string> predicted;
    for (const auto& [name, folder] : named_folders("supervised", o.supervised)) {
        const auto manifest = store::read_manifest(folder);
        const auto made_of = manifest.at("request").value("inputs", nlohmann::json::object());
        if (made_of.value("pairs", "") != galaxies.content_ids().value("pairs", "")) {
            throw DataError(folder, fmt::format("was trained with other pairs than {}: it may have seen the "
                                                "galaxies that it would be asked for",
                                                o.pairs));
        }
        const nn::WeightsFile file(folder + "/model.safetensors");
        Supervised one{name, store::content_id(folder), nn::load_regressor(file),
                       data::centre_view_config(file.metadata(), "", {}), epochs_of(manifest)};
        one.name += " " + one.model->config().modality;
        const auto ssfr = manifest.at("request").at("configuration").value("ssfr-def", "physical");
        for (const auto& target : one.model->config().targets) {
            if (target == "LOG_SSFR" && ssfr != o.label_rules.ssfr) {
                throw DataError(folder, fmt::format("was trained with ssfr-def = {}, and would be compared "
                                                    "with labels by ssfr-def = {}",
                                                    ssfr, o.label_rules.ssfr));
            }
            if (!predicted.insert(one.name + "/" + target).second) {
                throw ConfigError(
                    fmt::format("'supervised': two models called '{}' predict '{}'", name, target));
            }
        }
        one.model->to(device);
        supervised.push_back(std::move(one));
    }
}

nlohmann::json Inputs::ids(const Options& o) const
{
    auto all = galaxies.content_ids();
    all["embeddings"] = embeddings.content_id();
    if (untrained) all["model"] = store::content_id(o.model);
    if (!o.labels.empty()) all["labels"] = stage::digest_of_file(o.labels);
    if (!o.morphology.empty()) all["morphology"] = stage::digest_of_file(o.morphology);
    for (const auto& one : comparisons) all["compare " + one.name] = one.embeddings.content_id();
    for (const auto& one : supervised) {
        all[fmt::format("supervised {} {}", one.name, fmt::join(one.model->config().targets, ","))] =
            one.content_id;
    }
    return all;
}

Target Inputs::redshift() const
{
    Target target{"redshift", data::read_scalars<double>(embeddings, "z_spec", sample.embedding_row, nan)};
    const auto warnings = data::read_scalars<std::int64_t>(embeddings, "zwarn", sample.embedding_row, -1);
    for (std::size_t i = 0; i < warnings.size(); ++i) {
        if (warnings[i] > 0) {  // a redshift in doubt is no truth
            target.truth[i] = nan;
        }
    }
    return target;
}

void Inputs::require_source_of_embeddings() const
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

}  // namespace astroclip::evaluate
