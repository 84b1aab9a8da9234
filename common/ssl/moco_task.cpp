#include "ssl/moco_task.hpp"

#include <ATen/ATen.h>
#include <c10/core/impl/LocalDispatchKeySet.h>
#include <fmt/format.h>

#include <algorithm>

#include "core/error.hpp"
#include "core/log.hpp"
#include "data/image_views.hpp"
#include "nn/encoder.hpp"
#include "ssl/info_nce.hpp"
#include "ssl/shuffle.hpp"
#include "ssl/task_state.hpp"
#include "train/ema.hpp"
#include "train/schedule.hpp"

namespace astroclip::ssl {

void bind(config::Section options, MocoTaskConfig& config)
{
    using config::at_least;
    options
        .option("queue", config.queue, "moco: keys of earlier batches, a multiple of the batch", at_least(1))
        .option("key-momentum", config.key_momentum, "moco: moving average of the key encoder",
                config::between(0, 1))
        .option("temperature", config.temperature, "moco: temperature of the loss", at_least(1e-6))
        .option("learning-rate", config.learning_rate, "moco: learning rate of the first epoch", at_least(0))
        .option("sgd-momentum", config.sgd_momentum, "moco: momentum of gradient descent",
                config::between(0, 1))
        .option("sgd-weight-decay", config.weight_decay, "moco: weight decay, part of the gradient",
                at_least(0))
        .option("epochs", config.epochs, "moco: epochs of the learning rate's cosine", at_least(1));
    bind(options, config.encoder);
    bind(options, config.views);
}

namespace {

constexpr double norm_floor = 1e-12;

MocoTaskConfig checked(const MocoTaskConfig& config, const comm::Communicator& ranks)
{
    if (config.batch_size % (config.group_size * ranks.size()) != 0) {
        throw ConfigError(
            fmt::format("'batch-size' = {} is not a multiple of 'group-size' = {} times {} ranks: every rank "
                        "owns whole groups",
                        config.batch_size, config.group_size, ranks.size()));
    }
    if (config.queue % config.batch_size != 0) {
        throw ConfigError(fmt::format("'queue' = {} is not a multiple of 'batch-size' = {}", config.queue,
                                      config.batch_size));
    }
    if (config.group_size < 2) {
        throw ConfigError("'group-size' = 1: batch normalisation needs 2 images or more");
    }
    data::augmentation_codes(config.views.augmentations);
    data::augmentation_codes(config.views.validation);
    return config;
}

double top1(const at::Tensor& queries, const at::Tensor& keys, const at::Tensor& queue)
{
    const at::NoGradGuard no_grad;
    const c10::impl::ExcludeDispatchKeyGuard full_precision(c10::autocast_dispatch_keyset);
    const auto logits =
        moco_logits(unit_rows(queries.detach().to(queue.scalar_type()), norm_floor), keys, queue, 1);
    return (logits.argmax(1) == 0).to(at::kDouble).mean().item<double>();
}

}  // namespace

MocoTask::MocoTask(const MocoTaskConfig& config, const data::Galaxies& galaxies, comm::Communicator& ranks,
                   std::uint64_t seed)
    : config_(checked(config, ranks)),
      galaxies_(galaxies),
      ranks_(ranks),
      seed_(seed),
      query_(config_.encoder),
      key_(config_.encoder),
      queue_(config_.encoder.embed_dim, config_.queue, seed,
             at::TensorOptions(config_.precision).device(ranks.device())),
      validation_queue_(config_.encoder.embed_dim, config_.queue, seed,
                        at::TensorOptions(config_.precision).device(ranks.device()), "moco-validation-queue"),
      query_norm_(config_.group_size),
      key_norm_(config_.group_size),
      loader_(
          galaxies, galaxies.members(false),
          data::Sampler(static_cast<std::int64_t>(galaxies.members(false).size()), config_.batch_size, seed),
          ranks.rank(), ranks.size())
{
    for (auto* encoder : {&query_, &key_}) {  // the key encoder starts as a copy
        nn::initialise(**encoder, seed, "image-encoder.");
        nn::convert(**encoder, ranks.device(), config_.precision);
    }
    for (auto& parameter : key_->parameters()) {
        parameter.set_requires_grad(false);
    }
}

std::vector<train::Parameter> MocoTask::parameters() const
{
    std::vector<train::Parameter> all;
    for (const auto& item : query_->named_parameters()) {
        all.push_back({.name = "encoder_q." + item.key(), .tensor = item.value()});
    }
    return all;
}

at::Tensor MocoTask::view(const data::Batch& batch, std::uint32_t epoch, std::int64_t number,
                          const std::string& augmentations) const
{
    const at::NoGradGuard no_grad;
    const auto images = batch.images.to(ranks_.device(), config_.precision);
    return data::physical_view(images, batch.object_ids, seed_, epoch, number, augmentations, config_.views);
}

// Projections, each group normalised by itself.
at::Tensor MocoTask::in_groups(nn::ResNet& encoder, const at::Tensor& images, GroupedNorm& norm) const
{
    return norm.forward(encoder, images, [&](const at::Tensor& group) { return encoder->forward(group); });
}

// Unit keys [b, E] of this rank's images, computed among other ranks' images. Collective.
at::Tensor MocoTask::keys(const at::Tensor& images, std::int64_t step)
{
    const at::NoGradGuard no_grad;
    const auto order = shuffled_rows(config_.batch_size, seed_, static_cast<std::uint32_t>(step));
    const auto shuffled = in_groups(key_, reordered(ranks_, images, order), key_norm_);
    return unit_rows(reordered(ranks_, shuffled, places(order)).to(config_.precision), norm_floor);
}

train::Loss MocoTask::forward(std::int64_t step)
{
    const auto epoch = static_cast<std::uint32_t>(loader_.sampler().epoch(step));
    new_keys_ = keys(view(batch_, epoch, 1, config_.views.augmentations), step);
    const auto queries = in_groups(query_, view(batch_, epoch, 0, config_.views.augmentations), query_norm_);
    const auto rank = effective_rank(queries, config_.group_size);
    watch(rank, step);
    return {moco_loss(queries, new_keys_, queue_.keys(), config_.temperature),
            {{"top1", top1(queries, new_keys_, queue_.keys())}, {"effective_rank", rank}}};
}

void MocoTask::watch(double rank, std::int64_t step)
{
    if (collapse_.fell(rank, step) && ranks_.rank() == 0) {
        log::warn(
            "step {}: the effective rank of the projections fell to {:.1f}, after {:.1f}: the encoder may be "
            "collapsing (look at 'effective_rank' in metrics.jsonl; a lower learning rate or a "
            "'key-momentum' "
            "nearer to 1 help)",
            step + 1, rank, collapse_.best());
    }
}

train::Rates MocoTask::rates(std::int64_t step) const
{
    const auto rate =
        train::epoch_cosine(loader_.sampler().epoch(step), config_.learning_rate, config_.epochs);
    return {rate, rate, config_.weight_decay};
}

// The key encoder follows here, after a good step, instead of before the next forward pass: the keys are the
// same.
void MocoTask::after_step(std::int64_t)
{
    queue_.push(ranks_, new_keys_);
    query_norm_.update(query_, ranks_);
    key_norm_.update(key_, ranks_);
    train::ema(key_->parameters(), query_->parameters(), config_.key_momentum);
}

std::map<std::string, double> MocoTask::validate()
{
    const auto numbers = galaxies_.members(true);
    const auto batches = static_cast<std::int64_t>(numbers.size()) / config_.batch_size;
    if (batches == 0) return {};
    query_->eval();
    key_->eval();
    auto sums = at::zeros({2}, at::TensorOptions(at::kDouble).device(ranks_.device()));
    for (std::int64_t i = 0; i < batches; ++i) {
        const auto batch =
            galaxies_.read(data::share(numbers, i, config_.batch_size, ranks_.rank(), ranks_.size()));
        const auto images = view(batch, 0, 0, config_.views.validation);
        const auto keys = unit_rows(key_->forward(images).to(config_.precision), norm_floor);
        const auto queries = query_->forward(images);
        sums[0] += moco_loss(queries, keys, validation_queue_.keys(), config_.temperature).to(at::kDouble);
        sums[1] += top1(queries, keys, validation_queue_.keys());
        validation_queue_.push(ranks_, keys);
    }
    query_->train();
    key_->train();
    ranks_.all_reduce_sum(sums);
    sums /= static_cast<double>(batches * ranks_.size());
    return {{"contrast", sums[0].item<double>()}, {"top1", sums[1].item<double>()}};
}

std::map<std::string, at::Tensor> MocoTask::state() const
{
    std::map<std::string, at::Tensor> all;
    add_state(all, "encoder_q.", *query_);
    add_state(all, "encoder_k.", *key_);
    all.merge(queue_.state());
    for (const auto& [name, tensor] : validation_queue_.state()) {
        all["val_" + name] = tensor;
    }
    return all;
}

void MocoTask::load_state(const std::map<std::string, at::Tensor>& state)
{
    take_state(state, "encoder_q.", *query_);
    take_state(state, "encoder_k.", *key_);
    queue_.load_state(state);
    validation_queue_.load_state(with_prefix(state, "val_"));
}

std::map<std::string, at::Tensor> MocoTask::model() const
{
    std::map<std::string, at::Tensor> all;
    add_state(all, "encoder_q.", *query_);
    return all;
}

std::map<std::string, std::string> MocoTask::model_metadata() const
{
    auto metadata = nn::describe(config_.encoder);
    metadata.merge(data::describe(data::CentreViewConfig{
        .crop = config_.views.crop,
        .rgb = config_.views.augmentations.ends_with("rg") ? config_.views.rgb : "none"}));
    return metadata;
}

}  // namespace astroclip::ssl
