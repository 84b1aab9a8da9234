#include "ssl/supervised_task.hpp"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>

#include "core/error.hpp"
#include "core/heartbeat.hpp"
#include "core/random.hpp"
#include "ssl/task_state.hpp"
#include "train/schedule.hpp"

namespace astroclip::ssl {
namespace {

bool of_images(const SupervisedConfig& config) { return config.modality == "image"; }

SupervisedConfig checked(const SupervisedConfig& config, const data::Galaxies& galaxies,
                         const comm::Communicator& ranks)
{
    if (!(of_images(config) ? galaxies.has_images() : galaxies.has_spectra())) {
        throw ConfigError(fmt::format("'modality' = {}, but no store of these is given", config.modality));
    }
    if (!of_images(config)) {
        return config;
    }
    if (config.group_size < 2 || config.batch_size % (config.group_size * ranks.size()) != 0) {
        throw ConfigError(fmt::format(
            "'batch-size' = {} is not a multiple of 'group-size' = {} (2 or more) times {} ranks: "
            "every rank owns whole groups",
            config.batch_size, config.group_size, ranks.size()));
    }
    const auto shape = galaxies.image_shape();
    if (const auto side = std::min(shape[1], shape[2]); config.view.crop > side) {
        throw ConfigError(fmt::format("'crop' = {}, but the images have {} pixels", config.view.crop, side));
    }
    return config;
}

}  // namespace

void bind(config::Section options, SupervisedConfig& config)
{
    using config::at_least;
    using config::one_of;
    options
        .option("modality", config.modality,
                "what is predicted from: image (a ResNet-18) or spectrum (convolutions and attention)",
                one_of({"image", "spectrum"}))
        .option("resnet-width", config.resnet_width, "channels of the ResNet's first stage", at_least(1))
        .option("batch-size", config.batch_size, "objects of a step, over all ranks", at_least(1))
        .option("group-size", config.group_size,
                "images that are normalised together; a rank owns whole groups", at_least(1))
        .option("learning-rate", config.learning_rate, "Adam, of the first epoch", at_least(0))
        .option("epochs", config.epochs, "of training", at_least(1))
        .option("schedule", config.schedule,
                "of the learning rate: constant (as published, where the cosine was not applied) or cosine "
                "(to 0 over the epochs)",
                one_of({"constant", "cosine"}))
        .option("augmentation-draws", config.augmentation_draws,
                "of flips and blur: one for the whole batch (as published) or one for each object",
                one_of({"batch", "object"}))
        .option("validation-fraction", config.validation_fraction,
                "of the labelled training galaxies, held out to choose the best epoch",
                config::between(0.001, 0.9))
        .option("read-ahead", config.read_ahead, "steps whose objects are read in advance",
                config::runtime_only(at_least(1)));
    bind(options, config.view);
}

SupervisedTask::Sides SupervisedTask::divide(const SupervisedConfig& config, const data::Galaxies& galaxies,
                                             const Labelled& labelled, std::uint64_t seed)
{
    Sides sides;
    for (const auto number : labelled.numbers) {
        Random random(seed, "supervised-validation", 0,
                      static_cast<std::uint64_t>(galaxies[number].object_id));
        (random.uniform() < config.validation_fraction ? sides.held_out : sides.fitted).push_back(number);
    }
    if (sides.held_out.empty()) {
        throw DataError("labels", fmt::format("of the {} labelled galaxies for training none is held out to "
                                              "choose the best epoch by: too few",
                                              labelled.numbers.size()));
    }
    return sides;
}

SupervisedTask::SupervisedTask(const SupervisedConfig& config, const data::Galaxies& galaxies,
                               const Labelled& labelled, comm::Communicator& ranks, std::uint64_t seed)
    : config_(checked(config, galaxies, ranks)),
      galaxies_(galaxies),
      ranks_(ranks),
      seed_(seed),
      sides_(divide(config, galaxies, labelled, seed)),
      loader_(galaxies, sides_.fitted,
              data::Sampler(static_cast<std::int64_t>(sides_.fitted.size()), config.batch_size, seed),
              ranks.rank(), ranks.size(), config.read_ahead),
      model_(nn::RegressorConfig{
          .modality = config.modality, .targets = labelled.targets, .resnet_width = config.resnet_width}),
      norm_(config.group_size)
{
    nn::initialise(*model_, seed, "supervised.");
    scale_targets(galaxies, labelled);
    model_->to(ranks.device());
}

void SupervisedTask::scale_targets(const data::Galaxies& galaxies, const Labelled& labelled)
{
    const at::NoGradGuard no_grad;
    const auto std = labelled.values.std(0, true);
    model_->target_mean.copy_(labelled.values.mean(0));
    model_->target_std.copy_(at::where(std > 0, std, 1.0));  // one galaxy alone has NaN
    scaled_ = ((labelled.values - model_->target_mean) / model_->target_std).to(at::kFloat);
    for (std::size_t row = 0; row < labelled.numbers.size(); ++row) {
        row_of_[galaxies[labelled.numbers[row]].object_id] = static_cast<std::int64_t>(row);
    }
}

std::vector<train::Parameter> SupervisedTask::parameters() const
{
    std::vector<train::Parameter> parameters;
    for (const auto& named : model_->named_parameters()) {
        parameters.push_back({.name = named.key(), .tensor = named.value()});
    }
    return parameters;
}

at::Tensor SupervisedTask::input(const data::Batch& batch) const
{
    return of_images(config_) ? data::centre_view(batch.images.to(ranks_.device()), config_.view)
                              : batch.spectra.to(ranks_.device());
}

at::Tensor SupervisedTask::augmented(const at::Tensor& images, std::int64_t step) const
{
    const std::string purpose = "supervised-view";
    if (config_.augmentation_draws == "batch") {
        return data::flip_and_blur(images, {Random(seed_, purpose, static_cast<std::uint32_t>(step))});
    }
    const auto epoch = static_cast<std::uint32_t>(loader_.sampler().epoch(step));
    std::vector<Random> draws;
    for (const auto id : batch_.object_ids) {
        draws.emplace_back(seed_, purpose, epoch, static_cast<std::uint64_t>(id));
    }
    return data::flip_and_blur(images, std::move(draws));
}

at::Tensor SupervisedTask::targets_of(const data::Batch& batch) const
{
    std::vector<std::int64_t> rows;
    for (const auto id : batch.object_ids) rows.push_back(row_of_.at(id));
    return scaled_.index_select(0, at::tensor(rows, at::kLong)).to(ranks_.device());
}

train::Loss SupervisedTask::forward(std::int64_t step)
{
    const auto x = input(batch_);
    const auto predicted =
        of_images(config_) ? norm_.forward(model_->resnet, augmented(x, step),
                                           [&](const at::Tensor& group) { return model_->forward(group); })
                           : model_->forward(x);
    return {at::mse_loss(predicted.to(at::kFloat), targets_of(batch_)), {}};
}

train::Rates SupervisedTask::rates(std::int64_t step) const
{
    const auto rate =
        config_.schedule == "cosine"
            ? train::epoch_cosine(loader_.sampler().epoch(step), config_.learning_rate, config_.epochs)
            : config_.learning_rate;
    return {rate, rate, 0.0};
}

void SupervisedTask::after_step(std::int64_t)
{
    if (of_images(config_)) norm_.update(model_->resnet, ranks_);
}

std::map<std::string, double> SupervisedTask::validate()
{
    model_->eval();
    auto sums = at::zeros({2}, at::TensorOptions(ranks_.device()).dtype(at::kDouble));
    const auto size = static_cast<std::int64_t>(sides_.held_out.size());
    for (std::int64_t step = 0; step * config_.batch_size < size; ++step) {
        alive("validation");
        const auto own = data::share(sides_.held_out, step, config_.batch_size, ranks_.rank(), ranks_.size());
        if (own.empty()) continue;
        const auto batch = galaxies_.read(own);
        const auto error = model_->forward(input(batch)).to(at::kDouble) - targets_of(batch);
        sums[0] += error.square().sum();
        sums[1] += error.numel();
    }
    model_->train();
    ranks_.all_reduce_sum(sums);
    return {{"loss", (sums[0] / sums[1]).item<double>()}};
}

std::map<std::string, at::Tensor> SupervisedTask::state() const
{
    std::map<std::string, at::Tensor> all;
    add_state(all, "", *model_);
    return all;
}

void SupervisedTask::load_state(const std::map<std::string, at::Tensor>& state)
{
    take_state(state, "", *model_);
}

std::map<std::string, std::string> SupervisedTask::model_metadata() const
{
    auto metadata = nn::describe(model_->config());
    if (of_images(config_)) metadata.merge(data::describe(config_.view));
    metadata["steps_per_epoch"] = std::to_string(steps_per_epoch());
    metadata["fitted_galaxies"] = std::to_string(sides_.fitted.size());
    metadata["held_out_galaxies"] = std::to_string(sides_.held_out.size());
    return metadata;
}

}  // namespace astroclip::ssl
