#include "ssl/dino_task.hpp"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include "core/error.hpp"
#include "nn/encoder.hpp"
#include "nn/weights.hpp"
#include "ssl/task_state.hpp"
#include "train/ema.hpp"

namespace astroclip::ssl {

void bind(config::Section options, DinoTaskConfig& config)
{
    options.option("batch-size", config.batch_size, "images a step, over all ranks", config::at_least(1))
        .option("group-size", config.group_size, "images whose samples are coupled; a rank owns whole groups",
                config::at_least(1))
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
    bind(options, config.schedule);
}

struct DinoTask::Network : torch::nn::Module {
    explicit Network(const DinoTaskConfig& config)
        : backbone(register_module("backbone", nn::VisionTransformer(config.backbone))),
          dino_head(register_module("dino_head", nn::DinoHead(config.backbone.width, config.head)))
    {
    }

    at::Tensor logits(const at::Tensor& images, const nn::StochasticDepth& depth = {})
    {
        return dino_head->forward(backbone->forward_features(images, {}, depth).cls);
    }

    nn::VisionTransformer backbone;
    nn::DinoHead dino_head;
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
    config.schedule.global_batch = config.batch_size;
    return config;
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
      centre_(config_.head.prototypes, config_.centre_momentum, ranks.device()),
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
                       item.key().starts_with("backbone.") ? "backbone" : "head"});
    }
    return all;
}

std::int64_t DinoTask::steps_per_epoch() const { return loader_.sampler().steps_per_epoch(); }

void DinoTask::seek(std::int64_t step) { loader_.seek(step); }

void DinoTask::fetch() { batch_ = loader_.next(); }

train::Loss DinoTask::forward(std::int64_t step)
{
    const auto epoch = static_cast<std::uint32_t>(loader_.sampler().epoch(step));
    const auto views =
        data::multi_crop(batch_.images.to(ranks_.device()), batch_.object_ids, seed_, epoch, config_.views);

    const auto targets = [&] {
        const at::NoGradGuard no_grad;
        teacher_logits_ = teacher_->logits(views.global).to(at::kFloat);
        return centre_.targets(teacher_logits_, config_.schedule.teacher_temperature_at(step));
    }();

    const auto groups = batch_.size() / config_.group_size;
    const auto depth = [&](int crops, const char* purpose) {
        return nn::draw_stochastic_depth(config_.backbone,
                                         {crops, groups, config_.group_size, ranks_.rank() * groups}, seed_,
                                         purpose, static_cast<std::uint32_t>(step));
    };
    const auto global = student_->logits(views.global, depth(2, "stochastic-depth-global"));
    const auto local =
        config_.views.local_crops > 0
            ? student_->logits(views.local, depth(config_.views.local_crops, "stochastic-depth-local"))
            : at::empty({0, global.size(1)}, global.options());
    const auto terms = dino_terms(global, local, targets, config_.student_temperature);
    return {terms.global + terms.local,
            {{"dino_global", terms.global.item<double>()}, {"dino_local", terms.local.item<double>()}}};
}

train::Rates DinoTask::rates(std::int64_t step) const
{
    const auto& s = config_.schedule;
    return {s.learning_rate_at(step), s.last_layer_learning_rate_at(step), s.weight_decay_at(step)};
}

void DinoTask::after_step(std::int64_t step)
{
    centre_.update(ranks_, teacher_logits_);
    train::ema(teacher_->parameters(), student_->parameters(), config_.schedule.momentum_at(step));
}

std::map<std::string, at::Tensor> DinoTask::state() const
{
    std::map<std::string, at::Tensor> all;
    add_state(all, "student.", *student_);
    add_state(all, "teacher.", *teacher_);
    for (const auto& [name, tensor] : centre_.state()) {
        all["centre." + name] = tensor;
    }
    return all;
}

void DinoTask::load_state(const std::map<std::string, at::Tensor>& state)
{
    take_state(state, "student.", *student_);
    take_state(state, "teacher.", *teacher_);
    centre_.load_state(with_prefix(state, "centre."));
}

std::map<std::string, at::Tensor> DinoTask::model() const
{
    std::map<std::string, at::Tensor> all;
    add_state(all, "", *teacher_->backbone);
    add_state(all, "dino_head.", *teacher_->dino_head);
    return all;
}

std::map<std::string, std::string> DinoTask::model_metadata() const
{
    auto metadata = nn::describe(config_.backbone);
    metadata.merge(
        data::describe(data::CentreViewConfig{.crop = config_.views.global_size, .rgb = config_.views.rgb}));
    return metadata;
}

}  // namespace astroclip::ssl
