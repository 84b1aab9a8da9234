#include <algorithm>
#include <array>
#include <initializer_list>
#include <limits>

#include "stages/evaluate_tables.hpp"

namespace astroclip::evaluate {
namespace {

constexpr double nan = std::numeric_limits<double>::quiet_NaN();

// The table of the published code's README: R² of redshift, mean R² of four properties, mean accuracy of the
// ten questions; NaN where it has none. `ours`: which description stands in the row.
struct PublishedRow {
    const char *source, *model, *type, *ours;
    double redshift, properties, morphology;
};
constexpr std::array<PublishedRow, 9> published{{
    {"image", "AstroCLIP", "zero-shot", "image", 0.79, 0.47, 0.76},
    {"image", "image encoder (AstroDINO)", "zero-shot", "AstroDINO image", 0.63, 0.37, 0.78},
    {"image", "Stein et al.", "zero-shot", "Stein image", 0.36, 0.26, 0.76},
    {"image", "ResNet18", "supervised", "ResNet18 image", 0.77, 0.43, nan},
    {"image", "ZooBot", "supervised", "ZooBot image", nan, nan, 0.88},
    {"spectrum", "AstroCLIP", "zero-shot", "spectrum", 0.99, 0.63, nan},
    {"spectrum", "spectrum encoder (SpecFormer)", "zero-shot", "SpecFormer spectrum", 0.99, 0.64, nan},
    {"spectrum", "Conv+Att", "supervised", "Conv+Att spectrum", 0.99, 0.60, nan},
    {"photometry", "MLP", "supervised", "magnitudes", 0.68, 0.42, nan},
}};

// Our figures of one description; null where there are none. `kind`: of the tables.
nlohmann::json our_figures(const std::string& features, const std::string& kind, const nlohmann::json& scores)
{
    const auto find = [](const nlohmann::json& table, std::initializer_list<std::string> keys) {
        const auto* at = &table;
        for (const auto& key : keys) {
            if (!at->is_object() || !at->contains(key)) return nlohmann::json();
            at = &at->at(key);
        }
        return *at;
    };
    return {{"redshift", find(scores, {"photo_z" + kind, features})},
            {"properties", find(scores, {"properties" + kind, "mean", features})},
            {"morphology", find(scores, {"morphology", "mean", features})}};
}

// Neighbours in an embedding; networks trained on labels, of which that on photometry is one of the small.
std::string kind_of(const std::string& type, const std::string& source)
{
    return type != "supervised" ? "" : source == "photometry" ? "_few_shot" : "_supervised";
}

}  // namespace

nlohmann::json published_table(const Case& of, const nlohmann::json& scores)
{
    auto table = nlohmann::json::array();
    std::vector<std::string> placed;
    for (const auto& row : published) {
        table.push_back(
            {{"source", row.source},
             {"model", row.model},
             {"type", row.type},
             {"ours", our_figures(row.ours, kind_of(row.type, row.source), scores)},
             {"published",
              {{"redshift", row.redshift}, {"properties", row.properties}, {"morphology", row.morphology}}}});
        placed.emplace_back(row.ours);
    }
    const auto add = [&](const std::string& source, const std::string& name, const std::string& type) {
        if (std::find(placed.begin(), placed.end(), name) != placed.end()) return;
        table.push_back({{"source", source},
                         {"model", name},
                         {"type", type},
                         {"ours", our_figures(name, kind_of(type, source), scores)},
                         {"published", nullptr}});
        placed.push_back(name);
    };
    for (const auto& each : of.features) {
        add(each.source, each.name, each.embedding ? "zero-shot" : "no learning");
    }
    for (const auto& one : of.learned) add(one.source, one.name, "supervised");
    return table;
}

}  // namespace astroclip::evaluate
