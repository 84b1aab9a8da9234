#include "ssl/clip_task.hpp"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <cmath>

#include "core/error.hpp"
#include "core/heartbeat.hpp"
#include "core/random.hpp"
#include "ssl/task_state.hpp"

namespace astroclip::ssl {
namespace {

constexpr double largest_scale = 100;         // CLIP's clamp of a learned scale (Radford et al. 2021)
constexpr std::int64_t largest_pool = 4096;   // held-out pairs among which validation retrieves
constexpr std::int64_t embedding_batch = 32;  // pairs that are embedded at once in validation

at::Tensor cross_entropy_of_matches(const at::Tensor& logits)
{
    return at::cross_entropy_loss(logits, at::arange(logits.size(0), logits.options().dtype(at::kLong)));
}

double symmetric_loss(const at::Tensor& cosines, double scale)
{
    const auto logits = scale * cosines;
    return 0.5 * (cross_entropy_of_matches(logits) + cross_entropy_of_matches(logits.t())).item<double>();
}

// Share of the rows whose own column is among their ten largest.
double recall_at_10(const at::Tensor& cosines)
{
    const auto better = cosines.gt(cosines.diagonal().unsqueeze(1)).sum(1);
    return better.lt(10).to(at::kDouble).mean().item<double>();
}

}  // namespace

void bind(config::Section options, ClipTaskConfig& config)
{
    options.option("batch-size", config.batch_size, "pairs a step, over all ranks", config::at_least(2))
        .option("freeze-encoders", config.freeze_encoders, "train the heads alone")
        .option("weight-decay", config.weight_decay, "AdamW's weight decay", config::at_least(0));
    bind(options, config.head);
    bind(options, config.loss);
    bind(options, config.view);
    bind(options, config.schedule);
}

ClipTask::ClipTask(const ClipTaskConfig& config, nn::AlignedModel model, const nn::ViTConfig& image,
                   const nn::SpecFormerConfig& spectrum, const data::Galaxies& galaxies,
                   comm::Communicator& ranks, std::uint64_t seed)
    : config_(config),
      image_(image),
      spectrum_(spectrum),
      model_(std::move(model)),
      galaxies_(galaxies),
      ranks_(ranks),
      seed_(seed),
      log_scale_(at::full({}, std::log(config.loss.logit_scale), at::kFloat).to(ranks.device())),
      loader_(
          galaxies, galaxies.paired(false),
          data::Sampler(static_cast<std::int64_t>(galaxies.paired(false).size()), config.batch_size, seed),
          ranks.rank(), ranks.size())
{
    model_->to(ranks.device());
    log_scale_.set_requires_grad(config_.loss.learn_scale);
    if (config_.freeze_encoders) {
        for (auto& encoder : {model_->image_encoder->backbone.ptr()->parameters(),
                              model_->spectrum_encoder->backbone.ptr()->parameters()}) {
            for (auto parameter : encoder) {
                parameter.set_requires_grad(false);
            }
        }
    }
}

std::vector<train::Parameter> ClipTask::parameters() const
{
    std::vector<train::Parameter> all;
    for (const auto& item : model_->named_parameters()) {
        if (item.value().requires_grad()) {
            all.push_back({.name = item.key(), .tensor = item.value()});
        }
    }
    if (config_.loss.learn_scale) {
        all.push_back({.name = "log_scale", .tensor = log_scale_, .weight_decay_scale = 0.0});
    }
    return all;
}

ClipTask::Embeddings ClipTask::embed(const data::Batch& batch, const nn::Dropout* image_dropout,
                                     const nn::Dropout* spectrum_dropout)
{
    const auto images = data::centre_view(batch.images.to(ranks_.device()), config_.view);
    const auto device = ranks_.device();
    const auto tokens = data::spectrum_tokens(batch.spectra.to(device), config_.tokens,
                                              batch.ivar.defined() ? batch.ivar.to(device) : at::Tensor());
    auto& image = model_->image_encoder;
    auto& spectrum = model_->spectrum_encoder;
    at::Tensor patches, sections;
    {
        const at::AutoGradMode gradients(!config_.freeze_encoders && at::GradMode::is_enabled());
        patches = image->backbone->tokens_without_position(images);
        sections = spectrum->backbone->forward(tokens);
    }
    return {image->head->forward(patches, image_dropout).to(at::kFloat),
            spectrum->head->forward(sections, spectrum_dropout).to(at::kFloat)};
}

train::Loss ClipTask::forward(std::int64_t step)
{
    const auto draw = static_cast<std::uint32_t>(step);
    const nn::Dropout image_dropout(stream_key(seed_, "image-head"), draw, batch_.object_ids);
    const nn::Dropout spectrum_dropout(stream_key(seed_, "spectrum-head"), draw, batch_.object_ids);
    const auto z = embed(batch_, &image_dropout, &spectrum_dropout);

    const auto scale = config_.loss.learn_scale ? log_scale_.exp().clamp_max(largest_scale)
                                                : at::full({}, config_.loss.logit_scale, z.image.options());
    const auto gather = gather_from_name(config_.loss.gather);
    train::Loss loss;
    loss.share = info_nce(ranks_, z.image, z.spectrum, scale, gather, config_.loss.tile);
    {
        const at::NoGradGuard no_grad;
        const auto at_one =
            info_nce(ranks_, z.image.detach(), z.spectrum.detach(), 1.0, gather, config_.loss.tile);
        loss.terms["loss_at_scale_1"] = at_one.item<double>();
    }
    loss.terms["logit_scale"] = scale.item<double>();
    return loss;
}

train::Rates ClipTask::rates(std::int64_t step) const
{
    const auto rate = config_.schedule.at(step);
    return {rate, rate, config_.weight_decay};
}

ClipTask::Embeddings ClipTask::embed_held_out()
{
    auto numbers = galaxies_.paired(true);
    const auto total = static_cast<std::int64_t>(numbers.size());
    // Every rank embeds an equal share; the last is filled up with repeats, which are cut off after the
    // gathering.
    const auto own = (total + ranks_.size() - 1) / ranks_.size();
    numbers.resize(static_cast<std::size_t>(own * ranks_.size()), numbers.back());
    const auto share = std::span(numbers).subspan(static_cast<std::size_t>(ranks_.rank() * own),
                                                  static_cast<std::size_t>(own));

    std::vector<at::Tensor> image, spectrum;
    for (std::int64_t at = 0; at < own; at += embedding_batch) {
        alive("validation");
        const auto count = std::min(embedding_batch, own - at);
        const auto z = embed(
            galaxies_.read(share.subspan(static_cast<std::size_t>(at), static_cast<std::size_t>(count))),
            nullptr, nullptr);
        image.push_back(z.image);
        spectrum.push_back(z.spectrum);
    }
    return {ranks_.all_gather(at::cat(image)).narrow(0, 0, total),
            ranks_.all_gather(at::cat(spectrum)).narrow(0, 0, total)};
}

std::map<std::string, double> ClipTask::validate()
{
    const at::NoGradGuard no_grad;
    const auto total = static_cast<std::int64_t>(galaxies_.paired(true).size());
    if (total == 0) {
        return {};
    }
    const auto z = embed_held_out();
    const auto image = unit_rows(z.image), spectrum = unit_rows(z.spectrum);
    const auto batch = std::min(config_.batch_size, total);
    const auto batches = total / batch;
    std::map<std::string, double> figures;
    for (std::int64_t b = 0; b < batches; ++b) {
        const auto cosines =
            image.narrow(0, b * batch, batch).matmul(spectrum.narrow(0, b * batch, batch).t());
        figures["loss"] += symmetric_loss(cosines, config_.loss.logit_scale) / static_cast<double>(batches);
        figures["loss_at_scale_1"] += symmetric_loss(cosines, 1.0) / static_cast<double>(batches);
    }
    const auto pool = std::min(total, largest_pool);
    const auto cosines = image.narrow(0, 0, pool).matmul(spectrum.narrow(0, 0, pool).t());
    figures["recall_at_10_is"] = recall_at_10(cosines);
    figures["recall_at_10_si"] = recall_at_10(cosines.t());
    return figures;
}

std::map<std::string, at::Tensor> ClipTask::state() const
{
    std::map<std::string, at::Tensor> all;
    add_state(all, "", *model_);
    all["log_scale"] = log_scale_.detach();
    return all;
}

void ClipTask::load_state(const std::map<std::string, at::Tensor>& state)
{
    take_state(state, "", *model_);
    const at::NoGradGuard no_grad;
    log_scale_.copy_(state.at("log_scale"));
}

std::map<std::string, at::Tensor> ClipTask::model() const
{
    std::map<std::string, at::Tensor> all;
    add_state(all, "", *model_);
    return all;
}

std::map<std::string, std::string> ClipTask::model_metadata() const
{
    auto metadata = nn::describe(image_, spectrum_, config_.head);
    for (const auto& [key, value] : data::describe(config_.view)) {
        metadata["image." + key] = value;
    }
    for (const auto& [key, value] : data::describe(config_.tokens)) {
        metadata["spectrum." + key] = value;
    }
    metadata["logit_scale"] = fmt::format("{}", std::exp(log_scale_.item<double>()));
    return metadata;
}

}  // namespace astroclip::ssl
