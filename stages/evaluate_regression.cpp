#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "catalogue/few_shot.hpp"
#include "catalogue/posterior.hpp"
#include "catalogue/regression.hpp"
#include "core/log.hpp"
#include "core/random.hpp"
#include "data/rows.hpp"
#include "stages/evaluate_tables.hpp"

namespace astroclip::evaluate {
namespace {

constexpr double nan = std::numeric_limits<double>::quiet_NaN();

at::Tensor by_neighbours(const Features& features, const std::vector<Target>& targets, const Rows& rows,
                         const Case& of)
{
    return catalogue::knn_regression(of.world(), chosen(features.values, rows.train),
                                     truth_of(targets, rows.train), chosen(features.values, rows.test),
                                     {of.o.neighbours, features.standardise})
        .predicted;
}

// The published settings: of redshifts from images one small layer; of photometry the supervised baseline.
catalogue::FewShotConfig network_for(const Features& features, std::size_t targets, const Case& of)
{
    catalogue::FewShotConfig config{.epochs = of.o.few_shot_epochs, .seed = of.seed()};
    if (features.source == "photometry") {
        config.dropout = 0;
        config.learning_rate = 5e-4;
        config.batch = 128;
        config.epochs = of.o.photometry_epochs;
        config.patience = of.o.photometry_patience;
        config.validation_fraction = 0.2;
    } else if (features.source == "image" && targets == 1) {
        config.hidden = {32};
    }
    return config;
}

// Predictions [test, targets] of a description by a small network, and how long it was trained.
struct ByNetwork {
    at::Tensor predicted;
    nlohmann::json epochs;
};

// Of every description.
std::vector<ByNetwork> by_networks(const std::vector<Target>& targets, const Rows& rows, const Case& of)
{
    const auto results = shared_out(of.world(), of.features.size(), [&](std::size_t job) {
        const auto& features = of.features[job];
        const auto found = catalogue::few_shot_regression(
            chosen(features.values, rows.train), truth_of(targets, rows.train),
            chosen(features.values, rows.test), network_for(features, targets.size(), of));
        auto values = flat(found.predicted);
        values.insert(values.end(), {static_cast<double>(found.trained), static_cast<double>(found.epoch)});
        return values;
    });
    std::vector<ByNetwork> all;
    for (const auto& result : results) {
        const auto values = at::tensor(result, at::kDouble);
        all.push_back({values.slice(0, 0, -2).view({-1, std::ssize(targets)}),
                       {{"trained", result.rbegin()[1]}, {"best", result.back()}}});
    }
    return all;
}

// Every property and their mean, of one description.
void add_property_scores(nlohmann::json& scores, const std::string& features,
                         const std::vector<Target>& targets, const at::Tensor& truth,
                         const at::Tensor& predicted, const Case& of)
{
    for (std::size_t i = 0; i < targets.size(); ++i) {
        const auto number = static_cast<std::int64_t>(i);
        scores[targets[i].name][features] =
            score(column(truth, number), column(predicted, number), false, of);
    }
    scores["mean"][features] = mean_score(truth, predicted, of);
}

// Those of the properties that a network trained on labels predicts, and the mean if it predicts all.
void add_learned_scores(nlohmann::json& scores, const Learned& learned, const std::vector<Target>& targets,
                        const at::Tensor& truth, const std::vector<std::int64_t>& rows, const Case& of)
{
    std::vector<at::Tensor> columns;
    for (std::size_t i = 0; i < targets.size(); ++i) {
        const auto predicted = learned.of(targets[i].name, rows);
        if (predicted.empty()) continue;
        scores[targets[i].name][learned.name] =
            score(column(truth, static_cast<std::int64_t>(i)), predicted, false, of);
        columns.push_back(at::tensor(predicted, at::kDouble));
    }
    if (columns.size() == targets.size()) {
        auto& mean = scores["mean"][learned.name];
        mean = mean_score(truth, at::stack(columns, 1), of);
        mean["epochs"] = learned.epochs;
    }
}

// `predictions`: by name.
std::string predictions_csv(const Case& of, const Rows& rows, const std::vector<double>& truth,
                            const std::vector<std::pair<std::string, std::vector<double>>>& predictions)
{
    std::string csv = "object_id,z_true";
    for (const auto& [name, values] : predictions) csv += "," + name;
    csv += "\n";
    for (std::size_t i = 0; i < truth.size(); ++i) {
        csv +=
            fmt::format("{},{:.8f}", of.sample().object_id[static_cast<std::size_t>(rows.test[i])], truth[i]);
        for (const auto& [name, values] : predictions) csv += fmt::format(",{:.8f}", values[i]);
        csv += "\n";
    }
    return csv;
}

// `truth` and `predictions`, by name, [test, properties].
std::string properties_csv(const Case& of, const Rows& rows, const at::Tensor& truth,
                           const std::vector<std::pair<std::string, at::Tensor>>& predictions)
{
    std::vector<std::vector<double>> columns;
    std::string csv = "object_id";
    for (std::size_t i = 0; i < of.properties.size(); ++i) {
        const auto number = static_cast<std::int64_t>(i);
        csv += "," + of.properties[i].name;
        columns.push_back(column(truth, number));
        for (const auto& [name, values] : predictions) {
            csv += "," + of.properties[i].name + " by " + name;
            columns.push_back(column(values, number));
        }
    }
    csv += "\n";
    for (std::size_t row = 0; row < rows.test.size(); ++row) {
        csv += fmt::format("{}", of.sample().object_id[static_cast<std::size_t>(rows.test[row])]);
        for (const auto& values : columns) csv += fmt::format(",{:.8g}", values[row]);
        csv += "\n";
    }
    return csv;
}

// The first `share` of some rows in the order of a hash of their ids, so that a larger share holds a smaller
// one.
std::vector<std::int64_t> part_of(std::vector<std::int64_t> rows, double share, const Case& of)
{
    const auto hash = [&](std::int64_t row) {
        return mix64(static_cast<std::uint64_t>(of.sample().object_id[row]) ^
                     stream_key(of.seed(), "labels"));
    };
    std::sort(rows.begin(), rows.end(), [&](auto a, auto b) { return hash(a) < hash(b); });
    const auto some = std::llround(share * static_cast<double>(rows.size()));
    rows.resize(static_cast<std::size_t>(std::clamp<long long>(some, 1, std::ssize(rows))));
    std::sort(rows.begin(), rows.end());
    return rows;
}

}  // namespace

Redshifts redshifts(const Case& of)
{
    const std::vector<Target> target{of.inputs.redshift()};
    const auto rows = known_rows(target, of.sample());
    Redshifts result;
    if (!rows.any()) {
        if (of.world().is_root()) log::warn("no redshifts without a warning: photo-z is left out");
        return result;
    }
    const auto truth = chosen(target[0].truth, rows.test);
    std::vector<std::pair<std::string, std::vector<double>>> predictions;
    for (const auto& each : of.features) {
        predictions.emplace_back(each.name, column(by_neighbours(each, target, rows, of), 0));
        result.neighbours[each.name] = score(truth, predictions.back().second, true, of);
    }
    for (const auto& one : of.learned) {
        const auto predicted = one.of("redshift", rows.test);
        if (predicted.empty()) continue;
        predictions.emplace_back(one.name, predicted);
        result.supervised[one.name] = score(truth, predicted, true, of);
        result.supervised[one.name]["epochs"] = one.epochs;
    }
    result.csv = predictions_csv(of, rows, truth, predictions);
    if (of.o.few_shot_epochs > 0) {
        const auto learned = by_networks(target, rows, of);
        for (std::size_t i = 0; i < learned.size(); ++i) {
            auto& scores = result.few_shot[of.features[i].name];
            scores = score(truth, column(learned[i].predicted, 0), true, of);
            scores["epochs"] = learned[i].epochs;
        }
    }
    return result;
}

Properties properties(const Case& of)
{
    const auto& targets = of.properties;
    const auto rows = known_rows(targets, of.sample());
    Properties result;
    if (targets.empty() || !rows.any()) {
        if (!targets.empty() && of.world().is_root()) {
            log::warn("no galaxy on one side of the split has all {} labels: properties are left out",
                      targets.size());
        }
        return result;
    }
    const auto truth = truth_of(targets, rows.test);
    std::vector<std::pair<std::string, at::Tensor>> predictions;
    for (const auto& each : of.features) {
        predictions.emplace_back(each.name, by_neighbours(each, targets, rows, of));
        add_property_scores(result.neighbours, each.name, targets, truth, predictions.back().second, of);
    }
    result.csv = properties_csv(of, rows, truth, predictions);
    if (of.o.few_shot_epochs > 0) {
        const auto learned = by_networks(targets, rows, of);
        for (std::size_t i = 0; i < learned.size(); ++i) {
            const auto& name = of.features[i].name;
            add_property_scores(result.few_shot, name, targets, truth, learned[i].predicted, of);
            result.few_shot["mean"][name]["epochs"] = learned[i].epochs;
        }
    }
    for (const auto& one : of.learned) {
        add_learned_scores(result.supervised, one, targets, truth, rows.test, of);
    }
    return result;
}

nlohmann::json across_modalities(const Case& of)
{
    auto all = nlohmann::json::object();
    if (!of.sample().both_modalities()) {
        return all;
    }
    const auto unit = [&](const char* modality) {
        return data::read_rows(of.inputs.embeddings, std::string(modality) + "_embedding",
                               of.sample().embedding_row);
    };
    const std::vector<Target> redshift{of.inputs.redshift()};
    const auto& targets = of.properties;
    for (const auto& [from, to] : {std::pair("image", "spectrum"), std::pair("spectrum", "image")}) {
        const auto train = unit(to), query = unit(from);
        const auto predict = [&](const std::vector<Target>& what, const Rows& rows) {
            return catalogue::knn_regression(of.world(), chosen(train, rows.train),
                                             truth_of(what, rows.train), chosen(query, rows.test),
                                             {of.o.neighbours, false})
                .predicted;
        };
        auto& scores = all[fmt::format("{}_from_{}", from, to)];
        if (const auto rows = known_rows(redshift, of.sample()); rows.any()) {
            scores["redshift"] =
                score(chosen(redshift[0].truth, rows.test), column(predict(redshift, rows), 0), true, of);
        }
        if (const auto rows = known_rows(targets, of.sample()); !targets.empty() && rows.any()) {
            scores["properties"] = mean_score(truth_of(targets, rows.test), predict(targets, rows), of);
        }
    }
    return all;
}

nlohmann::json label_curves(const Case& of)
{
    auto curves = nlohmann::json::object();
    auto shares = of.inputs.label_shares;
    if (shares.empty()) {
        return curves;
    }
    shares.push_back(1);
    const auto add = [&](const std::string& what, const std::vector<Target>& targets) {
        const auto all = known_rows(targets, of.sample());
        if (targets.empty() || !all.any()) return;
        const auto truth = truth_of(targets, all.test);
        for (const auto share : shares) {
            const Rows rows{part_of(all.train, share, of), all.test};
            const auto learned =
                of.o.few_shot_epochs > 0 ? by_networks(targets, rows, of) : std::vector<ByNetwork>();
            for (std::size_t i = 0; i < of.features.size(); ++i) {
                const auto& each = of.features[i];
                if (!each.embedding && each.source != "photometry") continue;
                nlohmann::json point = {{"labels", rows.train.size()}, {"share", share}};
                point["r2"] = mean_r2(truth, by_neighbours(each, targets, rows, of));
                if (!learned.empty()) point["few_shot_r2"] = mean_r2(truth, learned[i].predicted);
                curves[what][each.name].push_back(point);
            }
        }
    };
    add("redshift", {of.inputs.redshift()});
    add("properties", of.properties);
    return curves;
}

nlohmann::json posteriors(const Case& of)
{
    auto all = nlohmann::json::object();
    const auto& targets = of.properties;
    const auto rows = known_rows(targets, of.sample());
    if (of.o.flows == 0 || targets.empty() || rows.test.empty() || rows.train.size() < 20) {
        return all;
    }
    for (const auto& each : of.features) {
        if (!each.embedding) continue;
        const auto found = catalogue::estimate_posteriors(
            of.world(), chosen(each.values, rows.train), truth_of(targets, rows.train),
            chosen(each.values, rows.test), truth_of(targets, rows.test),
            {.flows = of.o.flows, .seed = of.seed()});
        auto& scores = all[each.name];
        scores = {{"nll", found.nll.mean().item<double>()},
                  {"nll_std", of.o.flows > 1 ? found.nll.std().item<double>() : nan},
                  {"flows", of.o.flows},
                  {"epochs", found.epochs},
                  {"n", rows.test.size()}};
        for (std::size_t i = 0; i < targets.size(); ++i) {
            const auto pit = column(found.pit, static_cast<std::int64_t>(i));
            const auto fits = catalogue::calibration(pit);
            std::vector<int> histogram(20);
            for (const auto p : pit) ++histogram[std::min<std::size_t>(19, static_cast<std::size_t>(20 * p))];
            scores["calibration"][targets[i].name] = {{"ks", fits.ks},
                                                      {"within_68", fits.within_68},
                                                      {"within_95", fits.within_95},
                                                      {"pit_histogram", histogram}};
        }
    }
    return all;
}

}  // namespace astroclip::evaluate
