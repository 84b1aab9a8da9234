#pragma once

#include <ATen/core/Tensor.h>

#include <map>
#include <string>
#include <vector>

#include "train/task.hpp"

namespace astroclip::train {

// AdamW (Loshchilov & Hutter 2019; decoupled weight decay), fused over all parameters of equal rates. A
// parameter without a gradient is stepped with a gradient of 0. Its state is exact: a restored optimiser
// makes the same bits.
class AdamW {
public:
    struct Betas {
        double beta1 = 0.9, beta2 = 0.999, eps = 1e-8;
    };
    AdamW(std::vector<Parameter> parameters, const Betas& betas);

    void step(const Rates& rates);

    // "NAME.exp_avg", "NAME.exp_avg_sq" like the parameter and "NAME.step" (float32, 0-dimensional) of each.
    std::map<std::string, at::Tensor> state() const;
    void load_state(const std::map<std::string, at::Tensor>& state);  // throws DataError

private:
    struct Group {  // parameters of equal rates
        double learning_rate_scale, weight_decay_scale;
        bool last_layer;
        std::vector<std::string> names;
        std::vector<at::Tensor> parameters, exp_avg, exp_avg_sq, steps;
    };
    Group& group_of(const Parameter& parameter);

    Betas betas_;
    std::vector<Group> groups_;
};

// L2 norm of the gradients of each clip group, before clipping; those longer than `max_norm` (> 0) are scaled
// down to it. The norm of parameters without gradient is 0.
std::map<std::string, double> clip_gradients(const std::vector<Parameter>& parameters, double max_norm);

// Copies `state` into `tensors` by name, in place: every name must be there, in the same shape and type.
// Throws DataError naming `what`.
void copy_state(const std::map<std::string, at::Tensor>& state,
                const std::map<std::string, at::Tensor>& tensors, const std::string& what);

}  // namespace astroclip::train
