#include "ssl/task_state.hpp"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include "core/error.hpp"
#include "nn/weights.hpp"

namespace astroclip::ssl {

void add_state(std::map<std::string, at::Tensor>& all, const std::string& prefix,
               const torch::nn::Module& module)
{
    for (const auto& [name, tensor] : nn::published_state(module)) {
        all[prefix + name] = tensor.detach();
    }
}

void take_state(const std::map<std::string, at::Tensor>& all, const std::string& prefix,
                torch::nn::Module& module)
{
    const at::NoGradGuard no_grad;
    for (auto& [name, tensor] : nn::published_state(module)) {
        const auto found = all.find(prefix + name);
        if (found == all.end() || found->second.sizes() != tensor.sizes()) {
            throw DataError("checkpoint",
                            fmt::format("tensor '{}{}' is missing or not of the shape that the configuration "
                                        "asks for",
                                        prefix, name));
        }
        auto target = tensor;
        target.copy_(found->second);
    }
}

std::map<std::string, at::Tensor> with_prefix(const std::map<std::string, at::Tensor>& all,
                                              const std::string& prefix)
{
    std::map<std::string, at::Tensor> part;
    for (const auto& [name, tensor] : all) {
        if (name.starts_with(prefix)) {
            part[name.substr(prefix.size())] = tensor;
        }
    }
    return part;
}

}  // namespace astroclip::ssl
