#pragma once

#include <ATen/core/Tensor.h>

#include <map>
#include <string>
#include <vector>

#include "train/task.hpp"

namespace astroclip::train {

// Steps parameters by their gradients. A parameter without a gradient is stepped with a gradient of 0. The
// state is exact: a restored optimiser makes the same bits.
class Optimizer {
public:
    virtual ~Optimizer() = default;
    virtual void step(const Rates& rates) = 0;
    virtual std::map<std::string, at::Tensor> state() const = 0;
    virtual void load_state(const std::map<std::string, at::Tensor>& state) = 0;  // throws DataError
};

// AdamW (Loshchilov & Hutter 2019; decoupled weight decay), fused over all parameters of equal rates.
class AdamW : public Optimizer {
public:
    struct Betas {
        double beta1 = 0.9, beta2 = 0.999, eps = 1e-8;
    };
    AdamW(std::vector<Parameter> parameters, const Betas& betas);

    void step(const Rates& rates) override;

    // "NAME.exp_avg", "NAME.exp_avg_sq" like the parameter and "NAME.step" (float32, 0-dimensional) of each.
    std::map<std::string, at::Tensor> state() const override;
    void load_state(const std::map<std::string, at::Tensor>& state) override;

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

// Gradient descent with momentum; the weight decay is part of the gradient (torch's SGD).
class Sgd : public Optimizer {
public:
    Sgd(std::vector<Parameter> parameters, double momentum);

    void step(const Rates& rates) override;

    // "NAME.momentum_buffer" like the parameter.
    std::map<std::string, at::Tensor> state() const override;
    void load_state(const std::map<std::string, at::Tensor>& state) override;

private:
    std::vector<Parameter> parameters_;
    std::vector<at::Tensor> velocities_;
    double momentum_;
};

// L2 norm of the gradients of each clip group and of each part, before clipping; those of a group that are
// longer than `max_norm` (> 0) are scaled down to it. The norm of parameters without gradient is 0.
std::map<std::string, double> clip_gradients(const std::vector<Parameter>& parameters, double max_norm);

// Copies `state` into `tensors` by name, in place: every name must be there, in the same shape and type.
// Throws DataError naming `what`.
void copy_state(const std::map<std::string, at::Tensor>& state,
                const std::map<std::string, at::Tensor>& tensors, const std::string& what);

}  // namespace astroclip::train
