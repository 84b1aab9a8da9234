#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "stages/compute.hpp"
#include "stages/evaluate_case.hpp"

// The tables of the evaluation, each a part of evaluation.json. All are collective and the same on all ranks.
namespace astroclip::evaluate {

// What the networks trained on labels predict of the held-out galaxies. Throws NumericsError if it is not
// finite.
std::vector<Learned> learned_predictions(const Inputs& inputs, const stage::Compute& compute,
                                         stage::Context& context);

// Redshifts by nearest neighbours, by name of the features, by small networks, and by networks trained on
// labels; the table of predictions behind the scatter plots.
struct Redshifts {
    nlohmann::json neighbours = nlohmann::json::object(), few_shot = nlohmann::json::object(),
                   supervised = nlohmann::json::object();
    std::string csv;
};
Redshifts redshifts(const Case& of);

// {property: {features: scores}}, and under "mean" the mean over the properties; truth and predictions by
// neighbours of the held-out galaxies that have all of them, as a table.
struct Properties {
    nlohmann::json neighbours = nlohmann::json::object(), few_shot = nlohmann::json::object(),
                   supervised = nlohmann::json::object();
    std::string csv;
};
Properties properties(const Case& of);

// Redshift and properties of galaxies of one modality from neighbours in the other one.
nlohmann::json across_modalities(const Case& of);

// R² against the share of the training labels that is used.
nlohmann::json label_curves(const Case& of);

// Likelihood and calibration of the properties' posteriors from each embedding.
nlohmann::json posteriors(const Case& of);

// The ten questions of Galaxy Zoo: {question: {features: scores}}, and under "mean" the mean accuracy and F1.
nlohmann::json morphology(const Case& of);

// Is the true partner found among the held-out galaxies of the other modality?
nlohmann::json retrieval(const std::string& from, const std::string& to, const Case& of,
                         const Measured& measured, const stage::Compute& compute);

// Redshift and properties of every galaxy of the catalogue that has an image, from its nearest neighbours
// among the training galaxies other than itself: a store of predictions, in the order of the catalogue. False
// if no training galaxy has anything to predict from.
bool publish_predictions(const Case& of, const std::string& folder, stage::Context& context);
// Throws ConfigError for two labels whose predictions would have one name, or for one that the catalogue has.
void require_columns_of_their_own(const Inputs& inputs);

// The published table with our figures in its rows; what it does not have follows.
nlohmann::json published_table(const Case& of, const nlohmann::json& scores);
// It as text, for a terminal.
std::string text_of(const nlohmann::json& published_table);

// The embeddings of held-out galaxies, 5,000 at most, along their first two principal components: a table.
// Not collective.
std::string map_csv(const Case& of);

}  // namespace astroclip::evaluate
