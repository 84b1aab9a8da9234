// evaluate: embeddings/ + the paired galaxies of the stores (+ labels) -> how much the embeddings know,
// beside chance and what needs no learning.
#include <ATen/ATen.h>
#include <fmt/format.h>

#include <map>
#include <optional>

#include "core/log.hpp"
#include "stages/compute.hpp"
#include "stages/evaluate_tables.hpp"
#include "stages/stage.hpp"

namespace astroclip::evaluate {
namespace {

const stage::Description description{
    "evaluate", "redshifts, properties and partners from embeddings, beside baselines and chance",
    "  mpirun -n 4 astroclip-evaluate --embeddings run/embeddings --images run/images --spectra run/spectra "
    "\\\n"
    "      --pairs run/pairs --model run/aligned --output run/evaluation\n"
    "  astroclip-evaluate --config run/config.cfg --labels truth.fits --embeddings run/embeddings --images "
    "run/images \\\n"
    "      --spectra run/spectra --pairs run/pairs --output run/evaluation",
    true};

bool predicts(const Inputs& inputs, const Options& o) { return o.predict && inputs.sample.has("image"); }

// The files of text that are published, by name: scores as JSON, and tables.
struct Results {
    nlohmann::json scores;
    std::map<std::string, std::string> tables;
};

Results all_results(const Case& of, const Measured& measured, const stage::Compute& compute)
{
    const auto& inputs = of.inputs;
    const auto& o = of.o;
    const auto& sample = of.sample();
    auto redshift = redshifts(of);
    std::map<std::string, std::string> tables{{"predictions.csv", redshift.csv}};
    nlohmann::json scores = {
        {"photo_z", redshift.neighbours},
        {"photo_z_few_shot", redshift.few_shot},
        {"photo_z_supervised", redshift.supervised},
        {"sample", {{"train", sample.train}, {"test", sample.test()}, {"modalities", sample.modalities}}},
        {"neighbours", o.neighbours},
        {"neighbours_used", std::min<std::int64_t>(o.neighbours, sample.train)},
        {"bootstraps", o.bootstraps},
        {"outlier_limit", 0.05}};
    if (sample.both_modalities()) {
        scores["retrieval"] = {{"is", retrieval("image", "spectrum", of, measured, compute)},
                               {"si", retrieval("spectrum", "image", of, measured, compute)}};
    }
    if (!inputs.properties.empty()) {
        const auto found = properties(of);
        scores["properties"] = found.neighbours;
        scores["properties_few_shot"] = found.few_shot;
        scores["properties_supervised"] = found.supervised;
        if (!found.csv.empty()) tables["properties.csv"] = found.csv;
        scores["labels"] = inputs.label_facts;
        scores["posteriors"] = posteriors(of);
    }
    scores["across_modalities"] = across_modalities(of);
    scores["label_curves"] = label_curves(of);
    if (inputs.votes) {
        scores["morphology"] = morphology(of);
        scores["morphology_labels"] = inputs.votes->facts();
    }
    scores["table"] = published_table(of, scores);
    tables["table.txt"] = text_of(scores.at("table"));
    return {scores, tables};
}

void run(const Options& o, stage::Context& context)
{
    const at::NoGradGuard no_grad;
    const auto compute = stage::start_compute(context);
    std::optional<Inputs> inputs;
    context.world.together([&] {
        inputs.emplace(o, compute.device, context.run.seed);
        if (predicts(*inputs, o)) require_columns_of_their_own(*inputs);
    });
    if (context.world.is_root()) inputs->warn_of_labels();
    const auto& sample = inputs->sample;
    if (context.dry_run()) {
        context.print(fmt::format("evaluate: {} training and {} test galaxies", sample.train, sample.test()));
        return;
    }
    auto& output = context.open_output(o.output, inputs->ids(o));
    const auto measured = measure(*inputs, o, context);
    context.stop_if_requested("evaluation: nothing is lost but this stage's own minutes");
    const auto features = all_features(*inputs, measured);
    const auto learned = learned_predictions(*inputs, compute, context);
    const Case of{*inputs, features, learned, o, context, scored(inputs->properties, sample)};
    if (o.neighbours > sample.train && context.world.is_root()) {
        log::warn("neighbours = {}: there are {} training galaxies, and all of them are taken", o.neighbours,
                  sample.train);
    }
    const auto [scores, tables] = all_results(of, measured, compute);
    std::vector<std::string> files{"evaluation.json", "map.csv"};
    for (const auto& [name, text] : tables) files.push_back(name);
    if (predicts(*inputs, o) && publish_predictions(of, output.path() + "/predictions", context)) {
        files.emplace_back("predictions/index.h5");
    }
    context.world.on_root([&] {
        store::publish_text(output.path() + "/evaluation.json", scores.dump(1) + "\n");
        store::publish_text(output.path() + "/map.csv", map_csv(of));
        for (const auto& [name, text] : tables) store::publish_text(output.path() + "/" + name, text);
    });
    output.publish({{"kind", "evaluation"}, {"sample", scores.at("sample")}}, files);
    const auto found = scores.value("retrieval", nlohmann::json::object());
    for (const auto& [mode, one] : found.items()) {
        log::info("{}: the true partner is among the first 10 for {:.1f} % of {} ({:.1f} times chance)", mode,
                  100 * one.at("recall_at_10").get<double>(), one.at("n").get<std::int64_t>(),
                  one.at("times_chance").get<double>());
    }
    context.print(tables.at("table.txt") + output.path());
}

}  // namespace
}  // namespace astroclip::evaluate

int main(int argc, char** argv)
{
    using namespace astroclip::evaluate;
    return astroclip::stage::run<Options>(argc, argv, description, bind, run);
}
