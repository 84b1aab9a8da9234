#include "train/schedule.hpp"

#include <cmath>
#include <cstdlib>
#include <numbers>

namespace astroclip::train {

using config::at_least;

namespace {

// From `base` at fraction 0 to `final` at fraction 1.
double half_cosine(double base, double final, double fraction)
{
    return final + 0.5 * (base - final) * (1.0 + std::cos(std::numbers::pi * fraction));
}

bool contains(std::string_view name, std::string_view part)
{
    return name.find(part) != std::string_view::npos;
}

// The global index of a block from "….blocks.I.…" or, with blocks in chunks, "….blocks.C.I.…".
int block_index(std::string_view name)
{
    int index = 0;
    auto rest = name.substr(name.find("blocks.") + 7);
    while (!rest.empty() && rest.front() >= '0' && rest.front() <= '9') {
        const auto end = rest.find('.');
        index = std::stoi(std::string(rest.substr(0, end)));
        rest = end == std::string_view::npos ? std::string_view{} : rest.substr(end + 1);
    }
    return index;
}

int layer_id(std::string_view name, int depth)
{
    for (const auto* part : {"pos_embed", "patch_embed", "mask_token", "cls_token", "register_tokens"}) {
        if (contains(name, part)) {
            return 0;
        }
    }
    return contains(name, "blocks.") ? block_index(name) + 1 : depth + 1;
}

}  // namespace

double WarmupCosine::at(std::int64_t step) const
{
    if (step < warmup_steps) {
        return learning_rate * static_cast<double>(step) / static_cast<double>(warmup_steps);
    }
    if (step >= total_steps) {
        return eta_min;
    }
    const auto fraction =
        static_cast<double>(step - warmup_steps) / static_cast<double>(total_steps - warmup_steps);
    return half_cosine(learning_rate, eta_min, fraction);
}

void bind(config::Section options, WarmupCosine& schedule)
{
    options.option("learning-rate", schedule.learning_rate, "largest learning rate", at_least(0))
        .option("warmup-steps", schedule.warmup_steps, "steps of linear warm-up from 0", at_least(0))
        .option("schedule-steps", schedule.total_steps, "step at which the cosine ends, warm-up included",
                at_least(1))
        .option("eta-min", schedule.eta_min, "learning rate from then on", at_least(0));
}

double warmup_cosine_inclusive(std::int64_t step, double start, double base, double final,
                               std::int64_t warmup, std::int64_t total)
{
    if (step >= total) {
        return final;
    }
    if (step < warmup) {
        const auto last = static_cast<double>(warmup - 1);
        return last > 0 ? start + (base - start) * static_cast<double>(step) / last : start;
    }
    return half_cosine(base, final, static_cast<double>(step - warmup) / static_cast<double>(total - warmup));
}

double epoch_cosine(std::int64_t epoch, double learning_rate, std::int64_t epochs, double final)
{
    return epoch >= epochs
               ? final
               : half_cosine(learning_rate, final, static_cast<double>(epoch) / static_cast<double>(epochs));
}

double AlignmentSchedule::at(std::int64_t step, std::int64_t steps_per_epoch) const
{
    if (epochs == 0) {
        return by_step.at(step);
    }
    const auto epoch = step / steps_per_epoch;
    const auto of_fall = again ? epochs - std::abs(epoch % (2 * epochs) - epochs) : epoch;
    const auto rate = epoch_cosine(of_fall, by_step.learning_rate, epochs, by_step.eta_min);
    const auto warmup = by_step.warmup_steps;
    return step < warmup ? rate * static_cast<double>(step) / static_cast<double>(warmup) : rate;
}

void bind(config::Section options, AlignmentSchedule& schedule)
{
    bind(options, schedule.by_step);
    options
        .option("schedule-epochs", schedule.epochs,
                "epoch at which the cosine ends, with one rate an epoch and in place of schedule-steps; 0: "
                "by steps",
                at_least(0))
        .option("schedule-again", schedule.again,
                "with schedule-epochs: then the rate rises again for as many epochs, and so on, as in the "
                "published runs; else it stays eta-min");
}

double DinoSchedule::scaled_learning_rate() const
{
    return base_learning_rate * std::sqrt(static_cast<double>(global_batch) / 1024.0);
}

double DinoSchedule::learning_rate_at(std::int64_t step) const
{
    return warmup_cosine_inclusive(step, 0.0, scaled_learning_rate(), min_learning_rate, warmup_steps,
                                   total_steps);
}

double DinoSchedule::last_layer_learning_rate_at(std::int64_t step) const
{
    return step < frozen_last_layer_steps ? 0.0 : learning_rate_at(step);
}

double DinoSchedule::weight_decay_at(std::int64_t step) const
{
    return warmup_cosine_inclusive(step, 0.0, weight_decay, final_weight_decay, 0, total_steps);
}

double DinoSchedule::momentum_at(std::int64_t step) const
{
    return warmup_cosine_inclusive(step, 0.0, momentum, final_momentum, 0, total_steps);
}

double DinoSchedule::teacher_temperature_at(std::int64_t step) const
{
    return warmup_cosine_inclusive(step, warmup_teacher_temperature, teacher_temperature, teacher_temperature,
                                   teacher_temperature_steps, teacher_temperature_steps);
}

void bind(config::Section options, DinoSchedule& s)
{
    options
        .option("base-learning-rate", s.base_learning_rate, "learning rate at a global batch of 1024",
                at_least(0))
        .option("schedule-steps", s.total_steps, "steps of all schedules", at_least(1))
        .option("warmup-steps", s.warmup_steps, "steps of linear warm-up of the learning rate", at_least(0))
        .option("min-learning-rate", s.min_learning_rate, "learning rate at the end", at_least(0))
        .option("weight-decay", s.weight_decay, "weight decay at the start", at_least(0))
        .option("final-weight-decay", s.final_weight_decay, "weight decay at the end", at_least(0))
        .option("momentum", s.momentum, "teacher's moving average at the start", config::between(0, 1))
        .option("final-momentum", s.final_momentum, "teacher's moving average at the end",
                config::between(0, 1))
        .option("warmup-teacher-temperature", s.warmup_teacher_temperature,
                "teacher temperature at the start", at_least(1e-6))
        .option("teacher-temperature", s.teacher_temperature, "teacher temperature after its warm-up",
                at_least(1e-6))
        .option("teacher-temperature-steps", s.teacher_temperature_steps, "steps of its linear warm-up",
                at_least(0))
        .option("frozen-last-layer-steps", s.frozen_last_layer_steps,
                "steps with learning rate 0 of the last layer", at_least(0));
}

ParameterScale dino_parameter_scale(std::string_view name, int depth, double layer_decay, double patch_embed)
{
    ParameterScale scale;
    scale.last_layer = contains(name, "last_layer");
    if (name.ends_with(".bias") || contains(name, "norm") || contains(name, "gamma")) {
        scale.weight_decay = 0.0;
    }
    const bool head = contains(name, "head") || scale.last_layer;
    if (!head) {
        scale.learning_rate = std::pow(layer_decay, depth + 1 - layer_id(name, depth));
        scale.learning_rate *= contains(name, "patch_embed") ? patch_embed : 1.0;
    }
    return scale;
}

}  // namespace astroclip::train
