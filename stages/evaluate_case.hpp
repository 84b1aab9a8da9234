#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "stages/evaluate_features.hpp"

// What the tables of the evaluation have in common.
namespace astroclip::evaluate {

// What a network trained on labels predicts.
struct Learned {
    std::string name, source;
    std::vector<std::string> targets;
    at::Tensor predicted;   // [n, targets] float64; NaN of the galaxies on the training side
    nlohmann::json epochs;  // of Supervised

    // Of one target, of some rows; empty if it does not predict it.
    std::vector<double> of(const std::string& target, const std::vector<std::int64_t>& rows) const;
};

// What every table needs.
struct Case {
    const Inputs& inputs;
    const std::vector<Features>& features;
    const std::vector<Learned>& learned;
    const Options& o;
    const stage::Context& context;
    std::vector<Target> properties;  // those that can be scored

    const Sample& sample() const { return inputs.sample; }
    const comm::World& world() const { return context.world; }
    std::uint64_t seed() const { return context.run.seed; }
};

// Rows of the sample where all targets are known.
struct Rows {
    std::vector<std::int64_t> train, test;
    bool any() const { return !train.empty() && !test.empty(); }
};
Rows known_rows(const std::vector<Target>& targets, const Sample& sample);
// The targets that nothing can be learned or measured of, with the reason: no galaxy of one side has them,
// or those held out have all the same value, so that there is no R².
std::map<std::string, std::string> unscored(const std::vector<Target>& targets, const Sample& sample);
// The others.
std::vector<Target> scored(const std::vector<Target>& targets, const Sample& sample);

at::Tensor chosen(const at::Tensor& values, const std::vector<std::int64_t>& rows);
std::vector<double> chosen(const std::vector<double>& values, const std::vector<std::int64_t>& rows);
at::Tensor truth_of(const std::vector<Target>& targets,
                    const std::vector<std::int64_t>& rows);  // [rows, targets] float64
std::vector<double> flat(const at::Tensor& values);
std::vector<double> column(const at::Tensor& table, std::int64_t number);

// Work that is done by one rank each, shared out; all get the results. Collective.
std::vector<std::vector<double>> shared_out(const comm::World& world, std::size_t jobs,
                                            const std::function<std::vector<double>(std::size_t)>& work);

// R² with its interval; of redshifts also bias, σ_NMAD and outliers.
nlohmann::json score(const std::vector<double>& truth, const std::vector<double>& predicted, bool redshift,
                     const Case& of);
// The mean R² over the columns (properties), alone and with the interval of resampled galaxies and the names
// of the properties, which are those of the case.
double mean_r2(const at::Tensor& truth, const at::Tensor& predicted);
nlohmann::json mean_score(const at::Tensor& truth, const at::Tensor& predicted, const Case& of);

}  // namespace astroclip::evaluate
