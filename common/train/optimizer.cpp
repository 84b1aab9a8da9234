#include "train/optimizer.hpp"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "core/error.hpp"

namespace astroclip::train {

AdamW::AdamW(std::vector<Parameter> parameters, const Betas& betas) : betas_(betas)
{
    for (const auto& parameter : parameters) {
        auto& group = group_of(parameter);
        group.names.push_back(parameter.name);
        group.parameters.push_back(parameter.tensor);
        group.exp_avg.push_back(at::zeros_like(parameter.tensor, at::MemoryFormat::Contiguous));
        group.exp_avg_sq.push_back(at::zeros_like(parameter.tensor, at::MemoryFormat::Contiguous));
        group.steps.push_back(
            at::zeros({}, parameter.tensor.options().dtype(at::kFloat).requires_grad(false)));
    }
}

AdamW::Group& AdamW::group_of(const Parameter& parameter)
{
    for (auto& group : groups_) {
        if (group.learning_rate_scale == parameter.learning_rate_scale &&
            group.weight_decay_scale == parameter.weight_decay_scale &&
            group.last_layer == parameter.last_layer) {
            return group;
        }
    }
    groups_.push_back({parameter.learning_rate_scale,
                       parameter.weight_decay_scale,
                       parameter.last_layer,
                       {},
                       {},
                       {},
                       {},
                       {}});
    return groups_.back();
}

void AdamW::step(const Rates& rates)
{
    const at::NoGradGuard no_grad;
    for (auto& group : groups_) {
        std::vector<at::Tensor> gradients;
        for (const auto& parameter : group.parameters) {
            gradients.push_back(parameter.grad().defined() ? parameter.grad() : at::zeros_like(parameter));
        }
        at::_foreach_add_(group.steps, 1);  // the fused step wants them advanced
        const auto learning_rate = (group.last_layer ? rates.last_layer_learning_rate : rates.learning_rate) *
                                   group.learning_rate_scale;
        at::_fused_adamw_(group.parameters, gradients, group.exp_avg, group.exp_avg_sq, {}, group.steps,
                          learning_rate, betas_.beta1, betas_.beta2,
                          rates.weight_decay * group.weight_decay_scale, betas_.eps, false, false);
    }
}

std::map<std::string, at::Tensor> AdamW::state() const
{
    std::map<std::string, at::Tensor> state;
    for (const auto& group : groups_) {
        for (std::size_t i = 0; i < group.names.size(); ++i) {
            state[group.names[i] + ".exp_avg"] = group.exp_avg[i];
            state[group.names[i] + ".exp_avg_sq"] = group.exp_avg_sq[i];
            state[group.names[i] + ".step"] = group.steps[i];
        }
    }
    return state;
}

void AdamW::load_state(const std::map<std::string, at::Tensor>& state)
{
    copy_state(state, this->state(), "the optimiser");
}

Sgd::Sgd(std::vector<Parameter> parameters, double momentum)
    : parameters_(std::move(parameters)), momentum_(momentum)
{
    for (const auto& parameter : parameters_) {
        velocities_.push_back(at::zeros_like(parameter.tensor, at::MemoryFormat::Contiguous).detach());
    }
}

void Sgd::step(const Rates& rates)
{
    const at::NoGradGuard no_grad;
    for (std::size_t i = 0; i < parameters_.size(); ++i) {
        const auto& parameter = parameters_[i];
        auto tensor = parameter.tensor;
        auto& velocity = velocities_[i];
        velocity.mul_(momentum_).add_(tensor, rates.weight_decay * parameter.weight_decay_scale);
        if (tensor.grad().defined()) velocity.add_(tensor.grad());
        const auto rate = parameter.last_layer ? rates.last_layer_learning_rate : rates.learning_rate;
        tensor.sub_(velocity, rate * parameter.learning_rate_scale);
    }
}

std::map<std::string, at::Tensor> Sgd::state() const
{
    std::map<std::string, at::Tensor> state;
    for (std::size_t i = 0; i < parameters_.size(); ++i) {
        state[parameters_[i].name + ".momentum_buffer"] = velocities_[i];
    }
    return state;
}

void Sgd::load_state(const std::map<std::string, at::Tensor>& state)
{
    copy_state(state, this->state(), "the optimiser");
}

namespace {

struct ClipGroup {
    std::vector<at::Tensor> gradients;
    std::map<std::string, std::vector<std::size_t>> parts;  // places in `gradients`

    void add(const Parameter& parameter)
    {
        const auto& gradient = parameter.tensor.grad();
        if (!parameter.part.empty()) {
            auto& places = parts[parameter.part];
            if (gradient.defined()) places.push_back(gradients.size());
        }
        if (gradient.defined()) gradients.push_back(gradient);
    }
    std::vector<at::Tensor> norms() const
    {
        return gradients.empty() ? std::vector<at::Tensor>() : at::_foreach_norm(gradients);
    }
};

double norm_of(const std::vector<at::Tensor>& norms)
{
    return norms.empty() ? 0.0 : at::stack(norms).norm().item<double>();
}

}  // namespace

std::map<std::string, double> clip_gradients(const std::vector<Parameter>& parameters, double max_norm)
{
    const at::NoGradGuard no_grad;
    std::map<std::string, ClipGroup> groups;
    for (const auto& parameter : parameters) {
        groups[parameter.clip_group].add(parameter);
    }
    std::map<std::string, double> norms;
    for (auto& [name, group] : groups) {
        const auto each = group.norms();
        const auto norm = norm_of(each);
        norms[name] = norm;
        for (const auto& [part, places] : group.parts) {
            std::vector<at::Tensor> own;
            for (const auto place : places) own.push_back(each[place]);
            norms[part] = norm_of(own);
        }
        if (max_norm > 0 && norm > max_norm && std::isfinite(norm)) {
            at::_foreach_mul_(group.gradients,
                              max_norm / (norm + 1e-6));  // as torch's clip_grad_norm_ has it
        }
    }
    return norms;
}

void copy_state(const std::map<std::string, at::Tensor>& state,
                const std::map<std::string, at::Tensor>& tensors, const std::string& what)
{
    const at::NoGradGuard no_grad;
    for (const auto& [name, tensor] : tensors) {
        const auto found = state.find(name);
        if (found == state.end()) {
            throw DataError(what, fmt::format("the checkpoint has no tensor '{}'", name));
        }
        if (found->second.sizes() != tensor.sizes() || found->second.scalar_type() != tensor.scalar_type()) {
            throw DataError(what,
                            fmt::format("tensor '{}' of the checkpoint has another shape or type", name));
        }
        at::Tensor(tensor).copy_(found->second);
    }
    if (state.size() != tensors.size()) {
        throw DataError(
            what, fmt::format("the checkpoint has {} tensors, {} expected", state.size(), tensors.size()));
    }
}

}  // namespace astroclip::train
