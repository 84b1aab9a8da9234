#pragma once

#include <cstdint>
#include <functional>
#include <nlohmann/json.hpp>
#include <string>

#include "comm/communicator.hpp"
#include "config/options.hpp"
#include "core/progress.hpp"
#include "store/publication.hpp"
#include "train/task.hpp"

namespace astroclip::train {

struct TrainerConfig {
    std::int64_t steps = 1000;
    std::string precision = "fp32";  // fp32, or bf16 (autocast; float32 master weights, losses and norms)
    double beta1 = 0.9, beta2 = 0.999, eps = 1e-8;  // AdamW (Loshchilov & Hutter 2019)
    double clip_norm = 1.0;                         // L2 norm of each clip group's gradient; 0: not clipped
    std::int64_t bucket_bytes = 25 << 20;  // gradients are summed over ranks in buckets of about this size
    std::int64_t checkpoint_steps = 0;     // 0: by time
    double checkpoint_minutes = 15;
    int keep_checkpoints = 2;
    std::int64_t validate_steps = 0;         // 0: once an epoch
    int keep_best = 1;                       // models of the lowest validation loss; 0: the last is published
    std::int64_t patience = 0;               // validations without a better loss before it stops; 0: never
    int max_bad_steps = 3;                   // in a row, with a loss or gradient that is not finite
    std::int64_t replica_check_steps = 500;  // the ranks compare a hash of their parameters this often
    std::int64_t log_steps = 1;              // a line of metrics.jsonl this often
};
void bind(config::Section options, TrainerConfig& config);

// What the trainer needs of the stage around it.
struct Surroundings {
    const comm::World& world;
    comm::Communicator& ranks;
    store::Output& output;
    Progress& progress;
    std::function<void(nlohmann::json)> metric;                 // one line of metrics.jsonl
    std::function<void(const std::string&)> stop_if_requested;  // throws Stopped on all ranks alike
};

// Data-parallel training: every rank computes its share, gradients are summed in buckets while the backward
// pass still runs, AdamW steps on every replica alike. Checkpoints
// OUTPUT/checkpoints/step-00001000/{model,optimizer}.safetensors and state.json are published like stores;
// training goes on from the newest complete one, with the same bits as if it had never stopped (CPU, float32,
// same ranks). In the end OUTPUT/model.safetensors is published with the manifest. Collective. Throws Stopped
// (75) after a checkpoint, NumericsError (76) with the object ids of the batch. With `keep_best` > 1 the next
// best models are published as models of their own, OUTPUT/best-2 and so on.
void train(Task& task, const TrainerConfig& config, const Surroundings& surroundings);

}  // namespace astroclip::train
