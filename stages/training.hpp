#pragma once

#include <functional>
#include <memory>

#include "data/batches.hpp"
#include "nn/weights.hpp"
#include "stages/compute.hpp"
#include "stages/stage.hpp"
#include "train/trainer.hpp"

// What the three training stages share: opening their inputs, and the run from plan to published model.
namespace astroclip::stage {

// The path itself; ConfigError if the option is not set.
const std::string& required(const std::string& option, const std::string& path);

// Collective. Errors of one rank are errors of all.
std::unique_ptr<data::Galaxies> open_galaxies(const Context& context, const data::Stores& stores);

// Collective. The weights in a published model's folder, checked against its manifest; adds its content id to
// `inputs`. MissingInput without a manifest, DataError if the file is not what the manifest says.
std::unique_ptr<nn::WeightsFile> open_model(const Context& context, const std::string& option,
                                            const std::string& folder, nlohmann::json& inputs);

// Collective. With --dry-run: builds the task and prints the plan. Else: opens the output, prepares, builds
// the task, trains it and publishes the model. `inputs`: content ids beside those of `galaxies`.
void train_and_publish(Context& context, const Compute& compute, const std::string& output,
                       const data::Galaxies& galaxies, const train::TrainerConfig& trainer,
                       const std::function<std::unique_ptr<train::Task>()>& make_task,
                       nlohmann::json inputs = nlohmann::json::object(),
                       const std::function<void(const std::string& output)>& prepare = {});

}  // namespace astroclip::stage
