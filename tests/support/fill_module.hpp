#pragma once

#include <gtest/gtest.h>
#include <torch/nn/module.h>

#include <cmath>
#include <vector>

#include "nn/weights.hpp"
#include "support/deterministic_fill.hpp"

// Check values of whole networks: every tensor of a module gets values that are a function of its
// place in the published state, and the outputs are compared by their first three elements, their
// last, and their norm.
namespace astroclip::test {

inline void fill_module(torch::nn::Module& module)
{
    const at::NoGradGuard no_grad;
    std::uint64_t n = 0;
    for (auto [name, tensor] : nn::published_state(module)) {
        const auto last = name.substr(name.rfind('.') + 1);
        double constant = 0, factor = 0;
        if (last == "num_batches_tracked") {
            ++n;
            continue;
        }
        if (last == "gamma") {
            constant = 0.5, factor = 0.1;
        } else if (last == "query" || last == "cls_token" || last == "pos_embed" || last == "mask_token") {
            factor = 0.5;
        } else if (tensor.dim() == 1) {
            const bool gain = last == "weight" || last == "running_var";
            constant = gain ? 1 : 0, factor = gain ? 0.1 : 0.02;
        } else {
            factor = std::sqrt(3.0 * double(tensor.size(0)) / double(tensor.numel()));
        }
        auto values = at::empty(tensor.sizes(), at::kFloat);
        auto* out = values.data_ptr<float>();
        for (std::int64_t i = 0; i < values.numel(); ++i) {
            out[i] = static_cast<float>(constant + factor * (2 * fill_uniform(n, std::uint64_t(i)) - 1));
        }
        tensor.copy_(values);
        ++n;
    }
}

// The two spectra [2, samples] of the check values, 1e-17 erg s-1 cm-2 Angstrom-1.
inline at::Tensor check_spectra(std::int64_t samples)
{
    const auto j = at::arange(samples, at::kDouble);
    const auto first = 2 + 1.5 * at::sin(0.01 * j) + 0.5 * at::sin(0.37 * j);
    const auto second = 0.3 + 0.1 * at::cos(0.02 * j);
    return at::stack({first, second}).to(at::kFloat);
}

// The two images [2, 3, 144, 144] of the check values.
inline at::Tensor check_images()
{
    const auto index = [](std::int64_t n, at::IntArrayRef shape) {
        return at::arange(n, at::kDouble).view(shape);
    };
    const auto b = index(2, {2, 1, 1, 1}), c = index(3, {1, 3, 1, 1}), h = index(144, {1, 1, 144, 1}),
               w = index(144, {1, 1, 1, 144});
    return (0.5 + 0.5 * at::sin(0.05 * h + 0.09 * w * (1 + b) + 0.8 * c + 1.3 * b)).to(at::kFloat);
}

// 2e-4 of the value, the tolerance that goes with these numbers; 2e-5 absolute, since they are
// printed to five digits.
inline void expect_near(const at::Tensor& ours, const std::vector<double>& first, double last, double l2 = 0)
{
    const auto flat = ours.detach().reshape({-1}).to(at::kDouble);
    const auto near = [](double value, double expected) {
        EXPECT_NEAR(value, expected, 2e-4 * std::abs(expected) + 2e-5);
    };
    for (std::size_t i = 0; i < first.size(); ++i) {
        near(flat[std::int64_t(i)].item<double>(), first[i]);
    }
    near(flat[-1].item<double>(), last);
    if (l2 > 0) near(flat.norm().item<double>(), l2);
}

}  // namespace astroclip::test
