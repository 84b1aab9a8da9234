#include "ssl/prototype_loss.hpp"

#include <ATen/ATen.h>
#include <c10/core/impl/LocalDispatchKeySet.h>
#include <fmt/format.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>

#include "core/error.hpp"

namespace astroclip::ssl {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

namespace {

constexpr std::int64_t logits_at_once = std::int64_t(1) << 22;

// The gradients, summed up piece by piece; of the prototypes in float32 or better.
struct Gradients {
    at::Tensor features, prototypes;
};

void add_product(at::Tensor& sum, const at::Tensor& a, const at::Tensor& b)
{
    if (sum.scalar_type() == a.scalar_type()) {
        sum.addmm_(a, b);
    } else {
        sum.add_(a.mm(b));
    }
}

class PrototypeCrossEntropy : public torch::autograd::Function<PrototypeCrossEntropy> {
public:
    static at::Tensor forward(AutogradContext* context, const at::Tensor& features,
                              const at::Tensor& prototypes, std::int64_t batch, const TargetRows& targets,
                              double temperature)
    {
        const c10::impl::ExcludeDispatchKeyGuard full_precision(c10::autocast_dispatch_keyset);
        const auto wide = features.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
        const auto width = features.size(1), count = prototypes.size(0);
        const auto chunks = features.view({-1, batch, width});
        const bool train = features.requires_grad() || prototypes.requires_grad();
        Gradients gradients;
        if (train) {
            gradients.features = at::empty_like(chunks);
            gradients.prototypes = at::zeros({count, width}, prototypes.options().dtype(wide));
        }
        auto loss = at::zeros({}, features.options().dtype(wide));
        const auto step = std::max<std::int64_t>(logits_at_once / (count * chunks.size(0)), 1);
        for (std::int64_t first = 0; first < batch; first += step) {
            const auto rows = std::min(step, batch - first);
            const auto x = chunks.narrow(1, first, rows).reshape({-1, width});
            const auto target = targets(first, rows);
            const auto mass = target.sum(1, true);
            auto logits = at::linear(x, prototypes).to(wide).div_(temperature);
            logits = logits.view({-1, rows, count});
            const auto log_sum = logits.logsumexp(2, true);
            loss += (log_sum.sum(0) * mass).sum() - (logits.sum(0) * target).sum();
            if (!train) continue;
            logits.sub_(log_sum).exp_().mul_(mass).sub_(target).mul_(1.0 / (double(batch) * temperature));
            const auto slope = logits.view({-1, count}).to(features.scalar_type());
            gradients.features.narrow(1, first, rows).copy_(slope.mm(prototypes).view({-1, rows, width}));
            add_product(gradients.prototypes, slope.t(), x);
        }
        if (train) {
            context->save_for_backward({gradients.features.view(features.sizes()),
                                        gradients.prototypes.to(prototypes.scalar_type())});
        }
        return loss / double(batch);
    }

    static variable_list backward(AutogradContext* context, variable_list upstream)
    {
        const c10::impl::ExcludeDispatchKeyGuard full_precision(c10::autocast_dispatch_keyset);
        const auto saved = context->get_saved_variables();
        const auto scaled = [&](const at::Tensor& gradient) {
            return gradient * upstream[0].to(gradient.scalar_type());
        };
        return {scaled(saved[0]), scaled(saved[1]), at::Tensor(), at::Tensor(), at::Tensor()};
    }
};

}  // namespace

at::Tensor prototype_cross_entropy(const at::Tensor& features, const at::Tensor& prototypes,
                                   std::int64_t batch, const TargetRows& targets, double student_temperature)
{
    if (batch < 1 || features.size(0) % batch != 0) {
        throw InternalError(
            fmt::format("DINO loss: {} student rows are not chunks of {}", features.size(0), batch));
    }
    return PrototypeCrossEntropy::apply(features.contiguous(), prototypes.to(features.scalar_type()), batch,
                                        targets, student_temperature);
}

}  // namespace astroclip::ssl
