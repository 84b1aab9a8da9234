#include "nn/recompute.hpp"

#include <ATen/ATen.h>
#include <ATen/autocast_mode.h>
#include <torch/csrc/autograd/function.h>
#include <torch/csrc/autograd/functions/utils.h>
#include <torch/csrc/autograd/variable.h>

namespace astroclip::nn {
namespace {

using torch::autograd::variable_list;

// Autocast as it was in the forward pass.
class SameAutocast {
public:
    SameAutocast(c10::DeviceType device, bool on)
        : device_(device), before_(at::autocast::is_autocast_enabled(device))
    {
        at::autocast::set_autocast_enabled(device_, on);
    }
    ~SameAutocast()
    {
        at::autocast::set_autocast_enabled(device_, before_);
        at::autocast::clear_cache();
    }
    SameAutocast(const SameAutocast&) = delete;
    SameAutocast& operator=(const SameAutocast&) = delete;

private:
    c10::DeviceType device_;
    bool before_;
};

// The backward pass of a part: the part once more, now with its graph, and that graph's backward pass, which
// adds to the parameters' gradients.
struct RecomputeBackward : torch::autograd::Node {
    RecomputeBackward(std::function<at::Tensor(const at::Tensor&)> of, const at::Tensor& x)
        : part(std::move(of)),
          input(x.detach()),
          autocast(at::autocast::is_autocast_enabled(x.device().type()))
    {
    }

    variable_list apply(variable_list&& gradients) override
    {
        const auto x = input.detach().set_requires_grad(true);
        at::Tensor y;
        {
            const at::AutoGradMode with_graph(true);
            const SameAutocast same(x.device().type(), autocast);
            y = part(x);
        }
        y.backward(gradients.at(0));
        return {x.grad()};
    }

    void release_variables() override { input.reset(); }

    std::function<at::Tensor(const at::Tensor&)> part;
    at::Tensor input;
    bool autocast;
};

}  // namespace

at::Tensor recomputed(const std::function<at::Tensor(const at::Tensor&)>& part, const at::Tensor& x)
{
    if (!at::GradMode::is_enabled()) {
        return part(x);
    }
    at::Tensor y;
    {
        const at::NoGradGuard no_graph;
        y = part(x);
    }
    const std::shared_ptr<RecomputeBackward> node(new RecomputeBackward(part, x),
                                                  torch::autograd::deleteNode);
    node->set_next_edges(torch::autograd::collect_next_edges(x));
    torch::autograd::set_history(y, node);
    return y;
}

}  // namespace astroclip::nn
