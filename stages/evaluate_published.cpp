#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
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

// What the table has of a row, and the score that is shown of it.
constexpr std::array<std::pair<const char*, const char*>, 3> columns{
    {{"redshift", "r2"}, {"properties", "r2"}, {"morphology", "accuracy"}}};

// NaN where it is null, as JSON has numbers that are not finite.
double number(const nlohmann::json& of, const std::string& key)
{
    const auto at = of.find(key);
    return at == of.end() || !at->is_number() ? nan : at->get<double>();
}

std::string cell(const nlohmann::json& scores, const std::string& key)
{
    const auto value = number(scores, key), low = number(scores, key + "_low"),
               high = number(scores, key + "_high");
    auto text = std::isnan(value) ? std::string("-") : fmt::format("{:.3f}", value);
    if (!std::isnan(low)) text += fmt::format(" [{:.3f}, {:.3f}]", low, high);
    if (const auto epochs = scores.find("epochs"); epochs != scores.end()) {
        text += fmt::format(" {{{:.0f}, {:.0f}}}", number(*epochs, "trained"), number(*epochs, "best"));
    }
    return text;
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

std::string text_of(const nlohmann::json& published_table)
{
    std::string text = fmt::format("{:46}{:13}", "", "");
    for (const auto& [what, key] : columns) text += fmt::format("{:33} ", what);
    text += "published, on other data\n";
    for (const auto& row : published_table) {
        text += fmt::format("{:10} {:34} {:12} ", row.at("source").get<std::string>(),
                            row.at("model").get<std::string>(), row.at("type").get<std::string>());
        std::string known;
        for (const auto& [what, key] : columns) {
            const auto& ours = row.at("ours").at(what);
            text += fmt::format("{:33} ", ours.is_null() ? "-" : cell(ours, key));
            const auto value = row.at("published").is_null() ? nan : number(row.at("published"), what);
            known += std::isnan(value) ? "   -  " : fmt::format("{:4.2f}  ", value);
        }
        text += row.at("published").is_null() ? "" : known;
        text.erase(text.find_last_not_of(' ') + 1);
        text += "\n";
    }
    return text +
           "R2 of redshift and of properties, accuracy of morphology, with 95 % intervals; {epochs trained, "
           "the best of them}\n";
}

}  // namespace astroclip::evaluate
