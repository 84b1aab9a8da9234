#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

namespace astroclip::train {

// One parameter that the optimiser changes, under the name it has in checkpoints.
struct Parameter {
    std::string name;
    at::Tensor tensor;
    double learning_rate_scale = 1.0;
    double weight_decay_scale = 1.0;
    bool last_layer = false;      // its learning rate is Rates::last_layer_learning_rate
    std::string clip_group = "";  // gradients are clipped, and their norms told, by group
    std::string part = "";        // of a network: the norm of its gradient is told too
};

// The optimiser's numbers at one step.
struct Rates {
    double learning_rate = 0.0;
    double last_layer_learning_rate = 0.0;
    double weight_decay = 0.0;
};

// What this rank's samples give. The mean over ranks of `share` is the loss of the global batch, and the mean
// over ranks of the gradients is its gradient.
struct Loss {
    at::Tensor share;  // 0-dimensional, carries the gradient
    std::map<std::string, double>
        terms;  // for metrics: this rank's shares of the terms ("dino_global"), mean over ranks
};

// A training problem: what the trainer does not know (models, data, losses). The sample order, augmentations
// and masks of a step are functions of (seed, step) alone, so the trainer resumes by the step number.
class Task {
public:
    virtual ~Task() = default;

    virtual std::vector<Parameter> parameters() const = 0;  // always in the same order
    virtual std::int64_t steps_per_epoch() const = 0;
    virtual std::int64_t global_batch() const = 0;

    virtual void seek(std::int64_t step) = 0;  // the next fetch is of this step; starts reading ahead
    virtual void fetch() = 0;                  // waits for this rank's samples of the next step (data_wait_s)
    // How often a parameter's gradient is added to in one backward pass (parts of a batch that are
    // recomputed).
    virtual std::int64_t gradient_parts() const { return 1; }
    virtual Loss forward(std::int64_t step) = 0;  // of the fetched samples; collective if its loss is
    virtual Rates rates(std::int64_t step) const = 0;
    // Momentum of the gradient descent that steps the parameters; none: AdamW steps them.
    virtual std::optional<double> sgd_momentum() const { return std::nullopt; }
    virtual void after_step(std::int64_t step)
    {
        (void)step;
    }  // teacher, centres; not called for a skipped step

    // Collective. The figures of the validation split; "loss", if it is one, chooses the best checkpoint.
    // Empty: none.
    virtual std::map<std::string, double> validate() { return {}; }

    virtual std::vector<std::int64_t> batch_ids()
        const = 0;  // object ids of the fetched samples, for messages

    // All that a checkpoint holds beside the optimiser: parameters and buffers of every model, centres,
    // queues.
    virtual std::map<std::string, at::Tensor> state() const = 0;
    virtual void load_state(const std::map<std::string, at::Tensor>& state) = 0;  // throws DataError

    // What is published in the end: tensors under the published names, and the architecture.
    virtual std::map<std::string, at::Tensor> model() const = 0;
    virtual std::map<std::string, std::string> model_metadata() const = 0;
};

}  // namespace astroclip::train
