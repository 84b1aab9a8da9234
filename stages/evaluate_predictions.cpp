#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <set>

#include "catalogue/regression.hpp"
#include "core/error.hpp"
#include "core/hash.hpp"
#include "core/heartbeat.hpp"
#include "data/rows.hpp"
#include "stages/evaluate_tables.hpp"
#include "store/writer.hpp"

namespace astroclip::evaluate {
namespace {

// A column of predictions.
struct Quantity {
    std::string name, unit, description, ucd;
};

// Labels have no units of their own here; of those known by name they are PROVABGS's.
Quantity quantity_of(const std::string& label, const std::string& ssfr = "physical")
{
    if (label == "LOG_SSFR" && ssfr != "physical") {
        return {"logssfr", "", "LOG_SSFR as the published code has it (ssfr-def = " + ssfr + ")", ""};
    }
    static const std::map<std::string, Quantity> known{
        {"redshift", {"z_phot", "", "redshift", "src.redshift.phot"}},
        {"LOG_MSTAR", {"logmass", "", "decimal logarithm of the stellar mass in solar masses", "phys.mass"}},
        {"Z_MW", {"z_met", "", "mass-weighted metallicity", "phys.abund.Z"}},
        {"TAGE_MW", {"age", "Gyr", "mass-weighted age", "time.age"}},
        {"LOG_SSFR",
         {"logssfr", "", "decimal logarithm of the star formation rate per stellar mass in 1/yr",
          "phys.SFR"}}};
    const auto found = known.find(label);
    if (found != known.end()) {
        return found->second;
    }
    auto name = label;
    std::transform(name.begin(), name.end(), name.begin(), [](unsigned char c) { return std::tolower(c); });
    return {name, "", "label " + label + ", in its unit", ""};
}

store::Column column_of(const Quantity& of, bool error)
{
    const auto ucd = error && !of.ucd.empty() ? "stat.error;" + of.ucd : of.ucd;
    return {of.name + (error ? "_err" : ""),
            store::Type::f32,
            {},
            of.unit,
            (error ? "scatter among the neighbours of the " : "predicted from the image: ") + of.description,
            ucd,
            "NaN"};
}

// Targets that are known for the same training galaxies.
class Predictor {
public:
    // `train`: those galaxies, and `rows` where the catalogue has them.
    Predictor(const std::vector<Target>& targets, const std::vector<std::int64_t>& train,
              const std::vector<std::int64_t>& rows, const Case& of)
        : regression_(raw_embedding(of.inputs.embeddings, rows, "image"), truth_of(targets, train),
                      {of.o.neighbours})
    {
        for (const auto& target : targets) {
            quantities_.push_back(quantity_of(target.name, of.o.label_rules.ssfr));
        }
        for (std::size_t i = 0; i < rows.size(); ++i) own_[rows[i]] = static_cast<std::int64_t>(i);
    }

    // Of some rows of the catalogue, with their embeddings.
    void add(store::Rows& predictions, const std::vector<std::int64_t>& rows,
             const at::Tensor& embedding) const
    {
        std::vector<std::int64_t> own;
        for (const auto row : rows) {
            const auto found = own_.find(row);
            own.push_back(found == own_.end() ? -1 : found->second);
        }
        const auto found = regression_.predict(embedding, at::tensor(own, at::kLong));
        for (std::size_t i = 0; i < quantities_.size(); ++i) {
            const auto number = static_cast<std::int64_t>(i);
            const auto values = column(found.predicted, number), errors = column(found.scatter, number);
            predictions.add(quantities_[i].name, values.data(), values.size());
            predictions.add(quantities_[i].name + "_err", errors.data(), errors.size());
        }
    }

private:
    std::vector<Quantity> quantities_;
    std::map<std::int64_t, std::int64_t> own_;  // row of the catalogue -> of the training set
    catalogue::KnnRegression regression_;
};

// The redshift, if some training galaxy has one, and the labels that are evaluated.
std::vector<Target> predicted_targets(const Case& of)
{
    std::vector<Target> targets;
    const auto redshift = of.inputs.redshift();
    if (!known_rows({redshift}, of.sample()).train.empty()) targets.push_back(redshift);
    targets.insert(targets.end(), of.properties.begin(), of.properties.end());
    return targets;
}

// Each target is predicted from all galaxies that have it; those that the same galaxies have share one
// search.
std::vector<Predictor> predictors(const std::vector<Target>& targets, const Case& of)
{
    std::map<std::vector<std::int64_t>, std::vector<Target>> by_galaxies;
    for (const auto& target : targets) {
        by_galaxies[known_rows({target}, of.sample()).train].push_back(target);
    }
    std::vector<Predictor> all;
    for (const auto& [train, some] : by_galaxies) {
        std::vector<std::int64_t> rows;
        for (const auto i : train) rows.push_back(of.sample().embedding_row[static_cast<std::size_t>(i)]);
        all.emplace_back(some, train, rows, of);
    }
    return all;
}

store::Schema schema_of(const std::vector<Target>& targets, const Case& of)
{
    store::Schema schema;
    schema.kind = "predictions";
    schema.columns.push_back(
        {"object_id", store::Type::i64, {}, "", "that of the catalogue of embeddings", "meta.id;meta.main"});
    for (const auto& target : targets) {
        const auto quantity = quantity_of(target.name, of.o.label_rules.ssfr);
        for (const bool error : {false, true}) schema.columns.push_back(column_of(quantity, error));
    }
    schema.attributes["method"] = fmt::format(
        "mean of the {} nearest training galaxies in the image embedding (of all, if there are fewer), "
        "each of its numbers standardised over them, weighted by 1/distance; no galaxy is its own neighbour",
        of.o.neighbours);
    return schema;
}

// Rows of the catalogue that have an image.
std::vector<std::int64_t> rows_with_image(const store::Reader& catalogue)
{
    const auto has = catalogue.column<std::uint8_t>("has_image");
    std::vector<std::int64_t> rows;
    for (std::size_t row = 0; row < has.size(); ++row) {
        if (has[row]) rows.push_back(static_cast<std::int64_t>(row));
    }
    return rows;
}

}  // namespace

void require_columns_of_their_own(const Inputs& inputs)
{
    std::set<std::string> taken;
    for (const auto& column : inputs.embeddings.schema().columns) taken.insert(column.name);
    std::vector<std::string> names{"redshift"};
    for (const auto& target : inputs.properties) names.push_back(target.name);
    for (const auto& name : names) {
        for (const bool error : {false, true}) {
            const auto column = column_of(quantity_of(name), error).name;
            if (!taken.insert(column).second) {
                throw ConfigError(fmt::format(
                    "'label-columns': '{}' would be the column '{}' of the predictions, which another label "
                    "or "
                    "the catalogue has; without it, or with 'predict' = false, the rest is evaluated",
                    name, column));
            }
        }
    }
}

bool publish_predictions(const Case& of, const std::string& folder, stage::Context& context)
{
    const auto targets = predicted_targets(of);
    if (targets.empty()) {
        return false;
    }
    const nlohmann::json made_by = {{"neighbours", of.o.neighbours},
                                    {"label-columns", of.o.label_columns},
                                    {"label-selection", of.o.label_rules.selection},
                                    {"ssfr-def", of.o.label_rules.ssfr},
                                    {"match-radius", of.o.match_radius_arcsec}};
    store::Output output(of.world(), folder,
                         {"evaluate", made_by, digest_of(made_by.dump()), of.inputs.ids(of.o)}, false,
                         {.break_lock = context.break_lock(), .remedy = "removing the folder"});
    if (output.up_to_date()) {
        return true;
    }
    const auto all = predictors(targets, of);
    const auto& catalogue = of.inputs.embeddings;
    const auto rows = rows_with_image(catalogue);
    const auto schema = schema_of(targets, of);
    constexpr auto at_once = catalogue::KnnRegression::queries_at_once;
    store::Writer writer(output, schema, std::ssize(rows), digest_of(of.inputs.ids(of.o).dump()),
                         {.part_rows = 1 << 16, .turn_rows = 1 << 14, .unit_rows = at_once});
    context.progress.begin("predicting", writer.plan_share(), "galaxies", writer.plan_done());
    while (writer.next_part()) {
        for (const auto& turn : writer.turns()) {
            store::Rows predictions(schema);
            for (auto first = turn.first; first < turn.last; first += at_once) {
                alive("predicting a block of galaxies");
                const std::vector<std::int64_t> some(rows.begin() + first,
                                                     rows.begin() + std::min(first + at_once, turn.last));
                const auto ids = data::read_scalars<std::int64_t>(catalogue, "object_id", some, -1);
                predictions.add("object_id", ids.data(), ids.size());
                const auto embedding = raw_embedding(catalogue, some, "image");
                for (const auto& each : all) each.add(predictions, some, embedding);
            }
            writer.append(predictions, {});
            context.progress.update(writer.plan_done());
        }
        writer.publish_part();
    }
    context.progress.end();
    writer.publish();
    return true;
}

}  // namespace astroclip::evaluate
