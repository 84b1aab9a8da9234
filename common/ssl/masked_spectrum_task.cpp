#include "ssl/masked_spectrum_task.hpp"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>

#include "core/error.hpp"
#include "core/heartbeat.hpp"
#include "nn/encoder.hpp"
#include "nn/weights.hpp"
#include "ssl/masked_spectrum_loss.hpp"
#include "train/optimizer.hpp"

namespace astroclip::ssl {
namespace {

MaskedSpectrumConfig checked(MaskedSpectrumConfig config, const data::Galaxies& galaxies)
{
    config.model.token_dim = config.tokens.token_dim();
    if (!galaxies.has_spectra()) {
        throw ConfigError("'spectra' is not set: there is nothing to train on");
    }
    const auto tokens = data::token_count(galaxies.bins(), config.tokens);
    if (tokens > config.model.max_tokens) {
        throw ConfigError(fmt::format("'max-tokens' = {}, but a spectrum of {} bins has {} tokens",
                                      config.model.max_tokens, galaxies.bins(), tokens));
    }
    if (config.model.width % config.model.heads != 0) {
        throw ConfigError(fmt::format("'width' = {} is not a multiple of 'heads' = {}", config.model.width,
                                      config.model.heads));
    }
    data::mask_starts({}, tokens, 0, 0, config.masks);  // throws if the masks do not fit
    return config;
}

data::Sampler sampler_of(const MaskedSpectrumConfig& config, const data::Galaxies& galaxies,
                         std::uint64_t seed)
{
    return data::Sampler(static_cast<std::int64_t>(galaxies.members(false).size()), config.batch_size, seed);
}

}  // namespace

void bind(config::Section options, MaskedSpectrumConfig& config)
{
    options.option("batch-size", config.batch_size, "spectra of a step, over all ranks", config::at_least(1))
        .option("weight-decay", config.weight_decay, "AdamW, on all parameters", config::at_least(0))
        .option("loss-ratio", config.loss_ratio,
                "of the squared error to what was masked: global (over the whole batch) or rank (mean of the "
                "ranks' own, "
                "as published)",
                config::one_of({"global", "rank"}))
        .option("weighting", config.weighting,
                "of a spectrum's bins in the loss: none (as published) or ivar",
                config::one_of({"none", "ivar"}))
        .option("validation-batches", config.validation_batches,
                "batches of held-out spectra in a validation, at most", config::at_least(0))
        .option("read-ahead", config.read_ahead, "steps whose spectra are read in advance",
                config::runtime_only(config::at_least(1)));
    bind(options, config.tokens);
    bind(options, config.masks);
    bind(options, config.model);
    bind(options, config.schedule);
}

MaskedSpectrumTask::MaskedSpectrumTask(const MaskedSpectrumConfig& config, const data::Galaxies& galaxies,
                                       comm::Communicator& ranks, std::uint64_t seed)
    : config_(checked(config, galaxies)),
      galaxies_(galaxies),
      ranks_(ranks),
      seed_(seed),
      held_out_(galaxies.members(true)),
      loader_(galaxies, galaxies.members(false), sampler_of(config, galaxies, seed), ranks.rank(),
              ranks.size(), config.read_ahead),
      model_(config_.model)
{
    const auto most = static_cast<std::size_t>(config_.validation_batches * config_.batch_size);
    held_out_.resize(std::min(held_out_.size(), most));
    nn::initialise(*model_, seed, "spectrum-encoder.");
    model_->to(ranks.device());
}

std::vector<train::Parameter> MaskedSpectrumTask::parameters() const
{
    std::vector<train::Parameter> parameters;
    for (const auto& named : model_->named_parameters()) {
        parameters.push_back({.name = named.key(), .tensor = named.value()});
    }
    return parameters;
}

MaskedSums MaskedSpectrumTask::sums_of(const data::Batch& batch, std::optional<std::uint32_t> epoch,
                                       const nn::Dropout* dropout)
{
    const auto device = ranks_.device();
    const auto ivar = config_.needs_ivar() ? batch.ivar.to(device) : at::Tensor();
    const auto tokens = data::spectrum_tokens(batch.spectra.to(device), config_.tokens, ivar);
    const auto weight =
        config_.weighting == "ivar" ? data::token_weights(ivar, config_.tokens) : at::Tensor();
    const auto starts =
        data::mask_starts(batch.object_ids, tokens.size(1), seed_, epoch, config_.masks).to(device);
    const auto input = data::mask_tokens(tokens, starts, config_.masks.width);
    const auto rows = data::masked_rows(starts, config_.masks.width, tokens.size(1));
    const auto masked = [&](const at::Tensor& x) { return x.defined() ? nn::token_rows(x, rows) : x; };
    return masked_sums(model_->reconstruct_at(input, rows, dropout), masked(tokens), masked(input),
                       masked(weight));
}

train::Loss MaskedSpectrumTask::forward(std::int64_t step)
{
    const auto epoch = static_cast<std::uint32_t>(loader_.sampler().epoch(step));
    dropout_.emplace(seed_, static_cast<std::uint32_t>(step), batch_.object_ids);
    const auto sums = sums_of(batch_, epoch, config_.model.dropout > 0 ? &*dropout_ : nullptr);
    const auto loss = masked_spectrum_loss(ranks_, sums, masked_ratio(config_.loss_ratio));
    return {loss.share, {{"masked_values", loss.count}}};
}

train::Rates MaskedSpectrumTask::rates(std::int64_t step) const
{
    const auto rate = config_.schedule.at(step);
    return {rate, rate, config_.weight_decay};
}

std::map<std::string, double> MaskedSpectrumTask::validate()
{
    if (held_out_.empty()) {
        return {};
    }
    auto sums = at::zeros({2}, at::TensorOptions(ranks_.device()).dtype(at::kDouble));
    for (std::int64_t step = 0; step * config_.batch_size < static_cast<std::int64_t>(held_out_.size());
         ++step) {
        alive("validation");
        const auto own = data::share(held_out_, step, config_.batch_size, ranks_.rank(), ranks_.size());
        if (!own.empty()) {
            const auto part = sums_of(galaxies_.read(own), std::nullopt);
            sums += at::stack({part.squared_error, part.count});
        }
    }
    ranks_.all_reduce_sum(sums);
    const auto count = sums[1].item<double>();
    return {{"loss", count > 0 ? sums[0].item<double>() / count : 0.0}};
}

std::map<std::string, at::Tensor> MaskedSpectrumTask::state() const
{
    const auto named = nn::published_state(*model_);
    return {named.begin(), named.end()};
}

void MaskedSpectrumTask::load_state(const std::map<std::string, at::Tensor>& state)
{
    train::copy_state(state, this->state(), "the spectrum encoder");
}

std::map<std::string, std::string> MaskedSpectrumTask::model_metadata() const
{
    auto metadata = nn::describe(config_.model);
    metadata.merge(data::describe(config_.tokens));
    metadata.merge(data::describe(config_.masks));
    return metadata;
}

}  // namespace astroclip::ssl
