#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "config/options.hpp"

// Learning rates and their like as functions of the step (0 for the first). No state: resuming needs the step
// alone.
namespace astroclip::train {

// Linear warm-up from 0, then half a cosine to eta_min at `total_steps`, constant afterwards (the published
// code of SpecFormer and AstroCLIP).
struct WarmupCosine {
    double learning_rate = 1e-4;
    std::int64_t warmup_steps = 1000;
    std::int64_t total_steps = 10000;  // warm-up included
    double eta_min = 0.0;

    double at(std::int64_t step) const;
};
void bind(config::Section options, WarmupCosine& schedule);

// Linear from `start` to `base` over `warmup` steps, end point included, then half a cosine that reaches
// `final` at `total`; `final` afterwards (DINO's schedule).
double warmup_cosine_inclusive(std::int64_t step, double start, double base, double final,
                               std::int64_t warmup, std::int64_t total);

// Half a cosine from `learning_rate` to `final` at epoch `epochs`, constant within an epoch; `final`
// afterwards (MoCo v2).
double epoch_cosine(std::int64_t epoch, double learning_rate, std::int64_t epochs, double final = 0.0);

// The schedules under which AstroCLIP was aligned: WarmupCosine, as its code has it, or, with `epochs`, what
// its runs had: epoch_cosine to eta_min, after which the runs' scheduler lets the rate rise again as it fell
// (`again`). With `epochs` by_step.total_steps means nothing.
struct AlignmentSchedule {
    WarmupCosine by_step;
    std::int64_t epochs = 0;
    bool again = false;

    double at(std::int64_t step, std::int64_t steps_per_epoch) const;
};
void bind(config::Section options, AlignmentSchedule& schedule);

// The schedules of DINOv2 as AstroDINO ran it. The learning rate is scaled by the global batch once, here.
struct DinoSchedule {
    double base_learning_rate = 2e-4;  // at a global batch of 1024 images; scales with its square root
    std::int64_t global_batch = 1440;
    std::int64_t total_steps = 250'000;
    std::int64_t warmup_steps = 40'000;
    double min_learning_rate = 1e-6;
    double weight_decay = 0.001, final_weight_decay = 0.01;
    double momentum = 0.992, final_momentum = 1.0;  // of the teacher's moving average
    double warmup_teacher_temperature = 0.04, teacher_temperature = 0.07;
    std::int64_t teacher_temperature_steps = 37'500;
    std::int64_t frozen_last_layer_steps = 1250;  // learning rate 0 for last_layer.*

    double scaled_learning_rate() const;
    double learning_rate_at(std::int64_t step) const;
    double last_layer_learning_rate_at(std::int64_t step) const;
    double weight_decay_at(std::int64_t step) const;
    double momentum_at(std::int64_t step) const;
    double teacher_temperature_at(std::int64_t step) const;
};
void bind(config::Section options, DinoSchedule& schedule);  // all but global_batch, which the task knows

// What one parameter's learning rate and weight decay are multiplied by.
struct ParameterScale {
    double learning_rate = 1.0;
    double weight_decay = 1.0;  // 0 for biases, norms and LayerScale
    bool last_layer = false;
};

// Layer-wise decay of DINOv2 by the published parameter name ("backbone.blocks.1.6.attn.qkv.weight", with or
// without the chunk number and prefixes): decay^(depth + 1 - id) with id 0 for the embeddings, i + 1 for
// block i, depth + 1 for the rest of the backbone; patch_embed times `patch_embed` in addition; heads 1.
ParameterScale dino_parameter_scale(std::string_view name, int depth, double layer_decay = 0.9,
                                    double patch_embed = 0.2);

}  // namespace astroclip::train
