#include "ssl/dino_task.hpp"

#include <ATen/ATen.h>
#include <c10/core/impl/LocalDispatchKeySet.h>
#include <fmt/format.h>

#include <algorithm>

#include "core/error.hpp"
#include "core/log.hpp"
#include "nn/encoder.hpp"
#include "nn/weights.hpp"
#include "ssl/task_state.hpp"
#include "train/ema.hpp"

namespace astroclip::ssl {

void bind(config::Section options, DinoTaskConfig& config)
{
    options.option("dino-weight", config.dino_weight, "of the loss on the cls token", config::at_least(0))
        .option("ibot-weight", config.ibot_weight, "of the loss on hidden patches; 0: none are hidden",
                config::at_least(0))
        .option("koleo-weight", config.koleo_weight, "of the term that spreads the cls tokens",
                config::at_least(0))
        .option("centering", config.centering, "how the teacher's logits are balanced",
                config::one_of({"center", "sinkhorn"}))
        .option("separate-ibot-head", config.separate_ibot_head,
                "the loss on patches has a projection head of its own")
        .option("student-temperature", config.student_temperature, "temperature of the student",
                config::at_least(1e-6))
        .option("centre-momentum", config.centre_momentum, "moving average of the teacher's centre",
                config::between(0, 1))
        .option("layer-decay", config.layer_decay, "learning rate from block to block", config::between(0, 1))
        .option("patch-embed-scale", config.patch_embed_scale, "of the patch embedding's learning rate",
                config::at_least(0));
    bind(options, config.backbone);
    bind(options, config.head);
    bind(options, config.views);
    bind(options, config.masks);
    bind(options, config.schedule);
}

struct DinoTask::Network : torch::nn::Module {
    explicit Network(const DinoTaskConfig& config)
        : backbone(register_module("backbone", nn::VisionTransformer(config.backbone))),
          dino_head(register_module("dino_head", nn::DinoHead(config.backbone.width, config.head)))
    {
        if (config.separate_ibot_head) {
            ibot_head = register_module("ibot_head", nn::DinoHead(config.backbone.width, config.head));
        }
    }

    const nn::DinoHead& patch_head() const { return ibot_head ? ibot_head : dino_head; }

    nn::VisionTransformer backbone;
    nn::DinoHead dino_head, ibot_head{nullptr};
};

// The patches that the student does not see, group by group.
struct DinoTask::MaskedPatches {
    at::Tensor masks;                         // [2b, N] bool; undefined: iBOT is off
    at::Tensor rows;                          // [M] int64, of the flattened patches [2b·N]
    at::Tensor weights;                       // [M], 1/number of hidden patches of the same crop
    std::vector<std::int64_t> rows_of_group;  // their sum is M

    at::Tensor of(const nn::ImageTokens& tokens) const
    {
        return tokens.patches.flatten(0, 1).index_select(0, rows);
    }
};

// What the student shall learn of the 2b cls tokens and of the M masked patches.
struct DinoTask::Targets {
    TargetRows cls, patches;
    double effective_rank = 0;  // of the teacher's cls tokens of the crops A
};

namespace {

DinoTaskConfig checked(DinoTaskConfig config, const comm::Communicator& ranks)
{
    if (config.batch_size % (config.group_size * ranks.size()) != 0) {
        throw ConfigError(
            fmt::format("'batch-size' = {} is not a multiple of 'group-size' = {} times {} ranks: every rank "
                        "owns whole groups",
                        config.batch_size, config.group_size, ranks.size()));
    }
    if (config.koleo_weight > 0 && config.group_size < 2) {
        throw ConfigError(
            "'koleo-weight' is not 0, but in groups of 'group-size' = 1 no image has a neighbour");
    }
    if (config.masks.min_ratio > config.masks.max_ratio) {
        throw ConfigError(fmt::format("'mask-min-ratio' = {} is above 'mask-max-ratio' = {}",
                                      config.masks.min_ratio, config.masks.max_ratio));
    }
    if (config.views.crop_within > 0 &&
        config.views.crop_within < std::max(config.views.global_size, config.views.local_size)) {
        throw ConfigError(
            fmt::format("'crop-within' = {} is less than a crop: 'global-crop' = {}, 'local-crop' = {}",
                        config.views.crop_within, config.views.global_size, config.views.local_size));
    }
    config.schedule.global_batch = config.batch_size;
    return config;
}

// Logits of mean features: the mean of the logits, without making these. In float32.
at::Tensor mean_logits(const at::Tensor& mean_features, const at::Tensor& prototypes)
{
    const c10::impl::ExcludeDispatchKeyGuard full_precision(c10::autocast_dispatch_keyset);
    return at::linear(mean_features.to(at::kFloat), prototypes.to(at::kFloat));
}

train::Loss summed(const std::map<std::string, at::Tensor>& terms, double effective_rank)
{
    train::Loss loss;
    loss.terms["effective_rank"] = effective_rank;
    for (const auto& [name, term] : terms) {
        loss.share = loss.share.defined() ? loss.share + term : term;
        loss.terms[name] = term.item<double>();
    }
    return loss;
}

}  // namespace

DinoTask::DinoTask(const DinoTaskConfig& config, const data::Galaxies& galaxies, comm::Communicator& ranks,
                   std::uint64_t seed)
    : config_(checked(config, ranks)),
      galaxies_(galaxies),
      ranks_(ranks),
      seed_(seed),
      student_(std::make_shared<Network>(config_)),
      teacher_(std::make_shared<Network>(config_)),
      cls_centre_(config_.head.prototypes, config_.centre_momentum, ranks.device()),
      patch_centre_(config_.head.prototypes, config_.centre_momentum, ranks.device()),
      loader_(
          galaxies, galaxies.members(false),
          data::Sampler(static_cast<std::int64_t>(galaxies.members(false).size()), config_.batch_size, seed),
          ranks.rank(), ranks.size())
{
    nn::initialise(*student_, seed, "image-encoder.");
    nn::initialise(*teacher_, seed, "image-encoder.");  // the teacher starts as a copy
    student_->to(ranks.device());
    teacher_->to(ranks.device());
    for (auto& parameter : teacher_->parameters()) {
        parameter.set_requires_grad(false);
    }
}

DinoTask::~DinoTask() = default;

std::vector<train::Parameter> DinoTask::parameters() const
{
    std::vector<train::Parameter> all;
    for (const auto& item : student_->named_parameters()) {
        const auto scale = train::dino_parameter_scale(item.key(), config_.backbone.depth,
                                                       config_.layer_decay, config_.patch_embed_scale);
        all.push_back({item.key(), item.value(), scale.learning_rate, scale.weight_decay, scale.last_layer,
                       item.key().substr(0, item.key().find('.'))});
    }
    return all;
}

std::int64_t DinoTask::steps_per_epoch() const { return loader_.sampler().steps_per_epoch(); }

void DinoTask::seek(std::int64_t step) { loader_.seek(step); }

void DinoTask::fetch() { batch_ = loader_.next(); }

data::ImageViews DinoTask::views(std::int64_t step) const
{
    const auto epoch = static_cast<std::uint32_t>(loader_.sampler().epoch(step));
    return data::multi_crop(batch_.images.to(ranks_.device()), batch_.object_ids, seed_, epoch,
                            config_.views);
}

DinoTask::MaskedPatches DinoTask::masked_patches(std::int64_t step) const
{
    if (config_.ibot_weight == 0) return {};
    const auto epoch = static_cast<std::uint32_t>(loader_.sampler().epoch(step));
    const auto grid = config_.views.global_size / config_.backbone.patch_size;
    const auto groups = batch_.size() / config_.group_size;
    const auto masks =
        data::block_masks(batch_.object_ids, config_.group_size, 2, grid, seed_, epoch, config_.masks);
    // The crops A and B of a group one after the other, then the next group.
    const auto crops =
        at::arange(masks.size(0)).view({2, groups, config_.group_size}).transpose(0, 1).flatten();
    const auto by_group = masks.index_select(0, crops);
    const auto found = by_group.nonzero();  // [M, 2]: crop, patch
    const auto counts = by_group.view({groups, -1}).sum(1);
    const auto* first = counts.data_ptr<std::int64_t>();
    const auto device = ranks_.device();
    return {
        .masks = masks.to(device),
        .rows = (crops.index_select(0, found.select(1, 0)) * masks.size(1) + found.select(1, 1)).to(device),
        .weights = masked_patch_weights(by_group).to(device),
        .rows_of_group = {first, first + groups}};
}

TargetRows DinoTask::target_rows(const DinoCentre& centre, const at::Tensor& features,
                                 const at::Tensor& prototypes, std::int64_t step) const
{
    const auto temperature = config_.schedule.teacher_temperature_at(step);
    const auto weights = prototypes.to(features.scalar_type());
    if (config_.centering == "sinkhorn") {
        const auto all = sinkhorn_targets(ranks_, at::linear(features, weights), temperature);
        return [all](std::int64_t first, std::int64_t count) { return all.narrow(0, first, count); };
    }
    return [=, &centre](std::int64_t first, std::int64_t count) {
        return centre.sharpened(at::linear(features.narrow(0, first, count), weights), temperature);
    };
}

DinoTask::Targets DinoTask::teach(const at::Tensor& global_crops, const MaskedPatches& masked,
                                  std::int64_t step)
{
    const at::NoGradGuard no_grad;
    const auto tokens = teacher_->backbone->forward_features(global_crops);
    Targets targets;
    targets.effective_rank =
        effective_rank(tokens.cls.narrow(0, 0, tokens.cls.size(0) / 2), config_.group_size);

    cls_centre_.take_up();
    const auto prototypes = teacher_->dino_head->prototypes();
    const auto cls = teacher_->dino_head->features(tokens.cls);
    cls_mean_ = mean_logits(cls.to(at::kFloat).mean(0, true), prototypes);
    targets.cls = target_rows(cls_centre_, cls, prototypes, step);
    if (!masked.masks.defined()) return targets;

    patch_centre_.take_up();
    const auto& head = teacher_->patch_head();
    const auto patch_prototypes = head->prototypes();
    const auto patches = head->features(masked.of(tokens));
    patch_means_ = mean_logits(group_means(patches, masked.rows_of_group), patch_prototypes);
    const auto rows = target_rows(patch_centre_, patches, patch_prototypes, step);
    targets.patches = [rows, weights = masked.weights](std::int64_t first, std::int64_t count) {
        return rows(first, count) * weights.narrow(0, first, count).unsqueeze(1);
    };
    return targets;
}

nn::StochasticDepth DinoTask::depth(int crops, const char* purpose, std::int64_t step) const
{
    const auto groups = batch_.size() / config_.group_size;
    return nn::draw_stochastic_depth(config_.backbone,
                                     {crops, groups, config_.group_size, ranks_.rank() * groups}, seed_,
                                     purpose, static_cast<std::uint32_t>(step));
}

train::Loss DinoTask::forward(std::int64_t step)
{
    const auto crops = views(step);
    const auto masked = masked_patches(step);
    const auto targets = teach(crops.global, masked, step);
    const auto images = batch_.size(), local_crops = std::int64_t(config_.views.local_crops);
    const auto pairs = static_cast<double>(2 + 2 * local_crops);  // of a student's and a teacher's crop

    const auto& student = *student_;
    const auto prototypes = student.dino_head->prototypes();
    std::map<std::string, at::Tensor> terms;
    const auto global = student.backbone->forward_features(crops.global, masked.masks,
                                                           depth(2, "stochastic-depth-global", step));
    // Rolled by one crop: crop A of the student learns from crop B of the teacher.
    const auto swapped = student.dino_head->features(global.cls).roll(images, 0);
    terms["dino_global"] =
        prototype_cross_entropy(swapped, prototypes, 2 * images, targets.cls, config_.student_temperature) *
        (config_.dino_weight * 2.0 / pairs);
    if (local_crops > 0) {
        const auto local = student.backbone->forward_features(
            crops.local, {}, depth(config_.views.local_crops, "stochastic-depth-local", step));
        // All pairs with the teacher's two crops: the cross-entropy with the sum of their targets.
        const TargetRows both = [&](std::int64_t first, std::int64_t count) {
            return targets.cls(first, count) + targets.cls(images + first, count);
        };
        terms["dino_local"] = prototype_cross_entropy(student.dino_head->features(local.cls), prototypes,
                                                      images, both, config_.student_temperature) *
                              (config_.dino_weight / pairs);
    }
    if (masked.masks.defined()) {
        terms["ibot"] = config_.ibot_weight * ibot(global, masked, targets.patches);
    }
    if (config_.koleo_weight > 0) {
        // Published as the sum over the two global crops.
        terms["koleo"] = koleo_loss(global.cls, config_.group_size) * (2 * config_.koleo_weight);
    }
    watch(targets.effective_rank, step);
    return summed(terms, targets.effective_rank);
}

// ibot_loss (dino_loss.hpp) of the student's patches.
at::Tensor DinoTask::ibot(const nn::ImageTokens& global, const MaskedPatches& masked,
                          const TargetRows& targets) const
{
    const auto rows = masked.rows.size(0);
    if (rows == 0) return at::zeros({}, global.cls.options().dtype(at::kFloat));
    const auto& head = student_->patch_head();
    const auto per_row = prototype_cross_entropy(head->features(masked.of(global)), head->prototypes(), rows,
                                                 targets, config_.student_temperature);
    return per_row * (static_cast<double>(rows) / static_cast<double>(masked.masks.size(0)));
}

void DinoTask::watch(double rank, std::int64_t step)
{
    if (collapse_.fell(rank, step) && ranks_.rank() == 0) {
        log::warn(
            "step {}: the effective rank of the embeddings fell to {:.1f}, after {:.1f}: the encoder may be "
            "collapsing (look at 'effective_rank' in metrics.jsonl; a lower learning rate, a higher "
            "'teacher-temperature' or more 'koleo-weight' help)",
            step + 1, rank, collapse_.best());
    }
}

train::Rates DinoTask::rates(std::int64_t step) const
{
    const auto& s = config_.schedule;
    return {s.learning_rate_at(step), s.last_layer_learning_rate_at(step), s.weight_decay_at(step)};
}

void DinoTask::after_step(std::int64_t step)
{
    if (config_.centering == "center") {
        cls_centre_.update(ranks_, cls_mean_);
        if (patch_means_.defined()) patch_centre_.update(ranks_, patch_means_);
    }
    train::ema(teacher_->parameters(), student_->parameters(), config_.schedule.momentum_at(step));
}

std::map<std::string, at::Tensor> DinoTask::state() const
{
    std::map<std::string, at::Tensor> all;
    add_state(all, "student.", *student_);
    add_state(all, "teacher.", *teacher_);
    for (const auto& [name, tensor] : cls_centre_.state()) {
        all["centre." + name] = tensor;
    }
    for (const auto& [name, tensor] : patch_centre_.state()) {
        all["patch-centre." + name] = tensor;
    }
    return all;
}

void DinoTask::load_state(const std::map<std::string, at::Tensor>& state)
{
    take_state(state, "student.", *student_);
    take_state(state, "teacher.", *teacher_);
    cls_centre_.load_state(with_prefix(state, "centre."));
    patch_centre_.load_state(with_prefix(state, "patch-centre."));
}

std::map<std::string, at::Tensor> DinoTask::model() const
{
    std::map<std::string, at::Tensor> all;
    add_state(all, "", *teacher_->backbone);
    add_state(all, "dino_head.", *teacher_->dino_head);
    if (teacher_->ibot_head) add_state(all, "ibot_head.", *teacher_->ibot_head);
    return all;
}

std::map<std::string, std::string> DinoTask::model_metadata() const
{
    auto metadata = nn::describe(config_.backbone);
    metadata.merge(data::describe(data::CentreViewConfig{
        .crop = config_.views.global_size, .rgb = config_.views.fluxes ? config_.views.rgb : "none"}));
    return metadata;
}

}  // namespace astroclip::ssl
