#include "ssl/clip_task.hpp"

#include <ATen/ATen.h>
#include <c10/core/impl/LocalDispatchKeySet.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <optional>
#include <regex>
#include <set>

#include "core/error.hpp"
#include "core/heartbeat.hpp"
#include "core/random.hpp"
#include "nn/recompute.hpp"
#include "ssl/alignment_figures.hpp"
#include "ssl/task_state.hpp"

namespace astroclip::ssl {
namespace {

constexpr double largest_scale = 100;         // CLIP's clamp of a learned scale (Radford et al. 2021)
constexpr std::int64_t largest_pool = 4096;   // held-out pairs among which validation retrieves
constexpr std::int64_t embedding_batch = 32;  // pairs that are embedded at once in validation

// What 16-bit products gave is compared in float32; a model of float64 stays so.
at::Tensor of_loss(const at::Tensor& embedding)
{
    return embedding.scalar_type() == at::kDouble ? embedding : embedding.to(at::kFloat);
}

bool begins_with(const std::string& name, std::initializer_list<const char*> words)
{
    return std::any_of(words.begin(), words.end(), [&](const char* word) { return name.starts_with(word); });
}

// A ResNet's projection, which is the image head.
constexpr const char* projection = "fc.";

// The part of an aligned model that a parameter belongs to.
std::string part_of(const std::string& name)
{
    const std::string modality = name.starts_with("image_encoder.") ? "image" : "spectrum";
    const auto backbone = modality + "_encoder.backbone.";
    const bool in_encoder = name.starts_with(backbone) && !name.starts_with(backbone + projection);
    return modality + (in_encoder ? "_encoder" : "_head");
}

// The block of an encoder that a parameter belongs to: "blocks.5", "blocks.1.5" in chunks, "layer3.1" of a
// ResNet; "" for none.
std::string block_of(const std::string& name)
{
    static const std::regex pattern(R"((blocks(\.\d+)+|layer\d\.\d+)\..*)");
    std::smatch match;
    return std::regex_match(name, match, pattern) ? match[1].str() : "";
}

// The last `count` blocks of an encoder; 0: all.
std::set<std::string> last_blocks(const torch::nn::Module& encoder, int count)
{
    std::vector<std::string> blocks;
    for (const auto& item : encoder.named_parameters()) {
        const auto block = block_of(item.key());
        if (!block.empty() && (blocks.empty() || blocks.back() != block)) blocks.push_back(block);
    }
    const auto kept = count == 0 ? blocks.size() : std::min(blocks.size(), static_cast<std::size_t>(count));
    return {blocks.end() - static_cast<std::ptrdiff_t>(kept), blocks.end()};
}

// Chooses what an encoder learns: nothing (`rate` 0), all (`blocks` 0), or its last blocks and last norm.
// What the tokens do not depend on is never trained, or weight decay would change it: heads of pretraining,
// cls token, position table. A head always is.
void require_gradients(torch::nn::Module& encoder, double rate, int blocks)
{
    const auto trained = last_blocks(encoder, blocks);
    const auto wanted = [&](const std::string& name) {
        if (begins_with(name, {projection})) return true;
        if (rate == 0 || begins_with(name, {"head.", "cls_token", "pos_embed", "mask_token"})) return false;
        return blocks == 0 || trained.contains(block_of(name)) ||
               begins_with(name, {"norm.", "final_layernorm."});
    };
    for (auto& item : encoder.named_parameters()) {
        item.value().set_requires_grad(wanted(item.key()));
    }
}

ClipTaskConfig checked(ClipTaskConfig config, const nn::ImageConfig& image, const comm::Communicator& ranks)
{
    if (!config.normalises_by_batch(image)) return config;
    if (config.group_size == 0) config.group_size = config.batch_size;
    if (config.group_size < 2 || config.batch_size % (config.group_size * ranks.size()) != 0) {
        throw ConfigError(fmt::format(
            "'batch-size' = {} is not a multiple of 'group-size' = {} (0: the whole batch; at least 2) times "
            "{} ranks: every rank owns whole groups, by which a ResNet's batch is normalised; or 'bn-mode' = "
            "eval",
            config.batch_size, config.group_size, ranks.size()));
    }
    if (config.micro_batch % config.group_size != 0) {
        throw ConfigError(fmt::format("'micro-batch' = {} is not a multiple of 'group-size' = {}",
                                      config.micro_batch, config.group_size));
    }
    return config;
}

}  // namespace

void bind(config::Section options, ClipTaskConfig& config)
{
    options.option("batch-size", config.batch_size, "pairs a step, over all ranks", config::at_least(2))
        .option("image-encoder-rate", config.image_encoder_rate,
                "learning rate of the image encoder as a factor of the heads'; 0: frozen",
                config::at_least(0))
        .option("spectrum-encoder-rate", config.spectrum_encoder_rate,
                "learning rate of the spectrum encoder as a factor of the heads'; 0: frozen",
                config::at_least(0))
        .option("trained-blocks", config.trained_blocks,
                "of an encoder that is not frozen train so many blocks (of a ResNet: residual blocks), the "
                "last; 0: all of it",
                config::at_least(0))
        .option(
            "bn-mode", config.bn_mode,
            "batch normalisation of a ResNet: train (by the batch, as published, even if it is frozen) or "
            "eval (as pretrained)",
            config::one_of({"train", "eval"}))
        .option("group-size", config.group_size,
                "images whose batch statistics are taken together, of which a rank owns whole groups; 0: the "
                "whole batch, as published on one GPU",
                config::at_least(0))
        .option("micro-batch", config.micro_batch,
                "pairs a rank embeds at once, twice: less memory for the same gradient; 0: all",
                config::runtime_only(config::at_least(0)))
        .option("weight-decay", config.weight_decay, "AdamW's weight decay", config::at_least(0));
    bind(options, config.augmentation);
    bind(options, config.head);
    bind(options, config.loss);
    bind(options, config.view);
    bind(options, config.schedule);
}

ClipTask::ClipTask(const ClipTaskConfig& config, nn::AlignedModel model, const nn::ImageConfig& image,
                   const nn::SpecFormerConfig& spectrum, const data::Galaxies& galaxies,
                   comm::Communicator& ranks, std::uint64_t seed, const TokenCache* cache)
    : config_(checked(config, image, ranks)),
      image_(image),
      spectrum_(spectrum),
      model_(std::move(model)),
      norm_(config_.group_size),
      galaxies_(galaxies),
      ranks_(ranks),
      seed_(seed),
      read_([&galaxies, cache](std::span<const std::int64_t> numbers) {
          return cache != nullptr ? cache->read(numbers) : galaxies.read(numbers);
      }),
      log_scale_(at::full({}, std::log(config.loss.logit_scale), model_->parameters().front().options())
                     .to(ranks.device())),
      loader_(
          read_, galaxies.paired(false),
          data::Sampler(static_cast<std::int64_t>(galaxies.paired(false).size()), config.batch_size, seed),
          ranks.rank(), ranks.size())
{
    model_->to(ranks.device());
    log_scale_.set_requires_grad(config_.loss.learn_scale);
    require_trained_gradients();
}

void ClipTask::require_trained_gradients()
{
    require_gradients(model_->image_encoder->backbone(), config_.image_encoder_rate, config_.trained_blocks);
    require_gradients(*model_->spectrum_encoder->backbone, config_.spectrum_encoder_rate,
                      config_.trained_blocks);
}

std::vector<train::Parameter> ClipTask::parameters() const
{
    std::vector<train::Parameter> all;
    if (config_.loss.learn_scale) {  // first: it goes with the last bucket, as its gradient has no parts
        all.push_back(
            {.name = "log_scale", .tensor = log_scale_, .weight_decay_scale = 0.0, .part = "logit_scale"});
    }
    const std::map<std::string, double> rates{{"image_encoder", config_.image_encoder_rate},
                                              {"spectrum_encoder", config_.spectrum_encoder_rate},
                                              {"image_head", 1.0},
                                              {"spectrum_head", 1.0}};
    for (const auto& item : model_->named_parameters()) {
        if (item.value().requires_grad()) {
            const auto part = part_of(item.key());
            all.push_back({.name = item.key(),
                           .tensor = item.value(),
                           .learning_rate_scale = rates.at(part),
                           .part = part});
        }
    }
    return all;
}

at::Tensor encode_images(const nn::AlignedModel& model, const data::Batch& batch,
                         const data::CentreViewConfig& view, at::Device device)
{
    const auto type = at::TensorOptions(device).dtype(model->parameters().front().dtype());
    return model->image_encoder->tokens(data::centre_view(batch.images.to(type), view));
}

at::Tensor encode_spectra(const nn::AlignedModel& model, const data::Batch& batch,
                          const data::SpectrumTokensConfig& tokens, at::Device device)
{
    const auto type = at::TensorOptions(device).dtype(model->parameters().front().dtype());
    return model->spectrum_encoder->backbone->forward(data::spectrum_tokens(
        batch.spectra.to(type), tokens, batch.ivar.defined() ? batch.ivar.to(type) : at::Tensor()));
}

at::Tensor ClipTask::image_tokens(const data::Batch& batch, bool training, std::int64_t first)
{
    if (batch.image_tokens.defined()) {
        return batch.image_tokens.to(ranks_.device()).to(at::kFloat);
    }
    const at::AutoGradMode gradients(config_.image_encoder_rate > 0 && at::GradMode::is_enabled());
    auto& encoder = *model_->image_encoder;
    const bool by_batch = training && config_.normalises_by_batch(image_);
    encoder.train(by_batch);
    if (!by_batch) {
        return encode_images(model_, batch, config_.view, ranks_.device());
    }
    const auto tokens_of = [&](const at::Tensor& images) {
        data::Batch group;
        group.images = images;
        return encode_images(model_, group, config_.view, ranks_.device());
    };
    return norm_.forward(encoder.resnet, batch.images, tokens_of, first);
}

at::Tensor ClipTask::spectrum_tokens(const data::Batch& batch) const
{
    if (batch.spectrum_tokens.defined()) {
        return batch.spectrum_tokens.to(ranks_.device()).to(at::kFloat);
    }
    const at::AutoGradMode gradients(config_.spectrum_encoder_rate > 0 && at::GradMode::is_enabled());
    return encode_spectra(model_, batch, config_.tokens, ranks_.device());
}

ClipTask::Embeddings ClipTask::embed(const data::Batch& read, const Draws* draws, const OnSpectra& on_spectra,
                                     std::int64_t first)
{
    const bool training = draws != nullptr;
    const auto batch = config_.augmentation.changes_anything()
                           ? augmented(read, config_.augmentation, config_.view.crop, seed_,
                                       training ? draws->step : 0, training)
                           : read;
    Embeddings z;
    z.spectrum = of_loss(model_->spectrum_encoder->head->forward(spectrum_tokens(batch),
                                                                 training ? &draws->spectrum : nullptr));
    if (on_spectra) {
        on_spectra(z.spectrum);
    }
    z.image = of_loss(model_->image_encoder->project(image_tokens(batch, training, first),
                                                     training ? &draws->image : nullptr));
    return z;
}

std::int64_t ClipTask::micro_batches() const
{
    const auto own = config_.batch_size / ranks_.size();
    return config_.micro_batch > 0 ? (own + config_.micro_batch - 1) / config_.micro_batch : 1;
}

// Gradient caching (Gao et al. 2021, arXiv 2101.06983): the embeddings of all parts, then the loss and its
// gradient by them, then part by part the embeddings once more, with their graph, and the rest of the chain.
ClipTask::Embeddings ClipTask::embed_by_parts(const Draws& draws, const OnSpectra& on_spectra)
{
    if (micro_batches() == 1) {
        return embed(batch_, &draws, on_spectra);
    }
    std::vector<at::Tensor> both;
    for (std::int64_t first = 0; first < batch_.size(); first += config_.micro_batch) {
        const auto count = std::min(config_.micro_batch, batch_.size() - first);
        const auto part = [this, first, count, draws](const at::Tensor&) {
            const Draws own{draws.step, draws.image.of(first, count), draws.spectrum.of(first, count)};
            const auto z = embed(data::narrowed(batch_, first, count), &own, {}, first);
            return at::cat({z.image, z.spectrum}, 1);
        };
        // A part knows its input; what stands for it is of the rank's device, whose autocast is to come back.
        both.push_back(nn::recomputed(part, at::zeros({1}, at::TensorOptions(ranks_.device()))));
    }
    const auto halves = at::cat(both).chunk(2, 1);
    on_spectra(halves[1]);
    return {halves[0], halves[1]};
}

train::Loss ClipTask::forward(std::int64_t step)
{
    const auto draw = static_cast<std::uint32_t>(step);
    std::optional<GatheredSpectra> spectra;
    const auto z = embed_by_parts({draw,
                                   {stream_key(seed_, "image-head"), draw, batch_.object_ids},
                                   {stream_key(seed_, "spectrum-head"), draw, batch_.object_ids}},
                                  [&](const at::Tensor& rows) {
                                      spectra.emplace(ranks_, rows, gather_from_name(config_.loss.gather));
                                  });

    train::Loss loss;
    loss.share = info_nce(z.image, *spectra, scale(), config_.loss.tile);
    loss.terms["logit_scale"] = scale().item<double>();
    return loss;
}

at::Tensor ClipTask::scale() const
{
    return config_.loss.learn_scale ? log_scale_.exp()
                                    : at::full({}, config_.loss.logit_scale, log_scale_.options());
}

// The parameter itself is clamped, not what is made of it: else it could never come back.
void ClipTask::after_step(std::int64_t)
{
    const at::NoGradGuard no_grad;
    log_scale_.clamp_max_(std::log(largest_scale));
    if (config_.normalises_by_batch(image_)) norm_.update(model_->image_encoder->resnet, ranks_);
}

train::Rates ClipTask::rates(std::int64_t step) const
{
    const auto rate = config_.schedule.at(step, steps_per_epoch());
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
            read_(share.subspan(static_cast<std::size_t>(at), static_cast<std::size_t>(count))), nullptr);
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
    const c10::impl::ExcludeDispatchKeyGuard full_precision(c10::autocast_dispatch_keyset);
    const auto batch = std::min(config_.batch_size, total);
    const auto batches = total / batch;
    std::map<std::string, double> figures;
    for (std::int64_t b = 0; b < batches; ++b) {
        const GatheredSpectra spectra(ranks_, z.spectrum.narrow(0, b * batch, batch), Gather::none);
        const auto loss_at = [&](const at::Tensor& scale) {
            const auto loss =
                info_nce(z.image.narrow(0, b * batch, batch), spectra, scale, config_.loss.tile);
            return loss.item<double>() / static_cast<double>(batches);
        };
        figures["loss"] += loss_at(scale());
        figures["loss_at_scale_1"] += loss_at(at::ones_like(log_scale_));
    }
    figures["mutual_information_bound"] = std::log(static_cast<double>(batch)) - figures["loss"];
    const auto pool = std::min(total, largest_pool);
    figures.merge(
        alignment_figures(unit_rows(z.image.narrow(0, 0, pool)), unit_rows(z.spectrum.narrow(0, 0, pool))));
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
    if (config_.loss.learn_scale) {
        all["extra.log_scale"] = log_scale_.detach();  // of this very model, which need not be the last
    }
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
    metadata["logit_scale"] =
        config_.loss.learn_scale ? "exp(extra.log_scale)" : fmt::format("{}", config_.loss.logit_scale);
    return metadata;
}

}  // namespace astroclip::ssl
