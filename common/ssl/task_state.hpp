#pragma once

#include <ATen/core/Tensor.h>
#include <torch/nn/module.h>

#include <map>
#include <string>

// The state of a task's modules as one flat map, for checkpoints.
namespace astroclip::ssl {

// Adds PREFIX + name of all parameters and buffers.
void add_state(std::map<std::string, at::Tensor>& all, const std::string& prefix,
               const torch::nn::Module& module);

// Copies them back. Throws DataError naming a tensor that is missing or has another shape.
void take_state(const std::map<std::string, at::Tensor>& all, const std::string& prefix,
                torch::nn::Module& module);

// The entries under a prefix, without it.
std::map<std::string, at::Tensor> with_prefix(const std::map<std::string, at::Tensor>& all,
                                              const std::string& prefix);

}  // namespace astroclip::ssl
