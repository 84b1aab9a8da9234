#include "ssl/dino_loss.hpp"

#include <ATen/ATen.h>
#include <c10/core/impl/LocalDispatchKeySet.h>
#include <fmt/format.h>
#include <torch/csrc/autograd/custom_function.h>

#include "core/error.hpp"

namespace astroclip::ssl {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

DinoCentre::DinoCentre(std::int64_t prototypes, double momentum, at::Device device)
    : momentum_(momentum),
      centre_(at::zeros({1, prototypes}, at::TensorOptions(at::kFloat).device(device))),
      next_centre_(centre_.clone())
{
}

at::Tensor DinoCentre::sharpened(const at::Tensor& teacher_logits, double temperature) const
{
    const at::NoGradGuard no_grad;
    return at::softmax((teacher_logits.to(at::kFloat) - centre_) / temperature, -1);
}

at::Tensor DinoCentre::targets(const at::Tensor& teacher_logits, double temperature)
{
    take_up();
    return sharpened(teacher_logits, temperature);
}

void DinoCentre::update(comm::Communicator& ranks, const at::Tensor& teacher_logits)
{
    const at::NoGradGuard no_grad;
    const auto rows = at::full({1, 1}, teacher_logits.size(0), at::TensorOptions(at::kDouble));
    auto sum = at::cat({teacher_logits.sum(at::OptionalIntArrayRef({0}), true, at::kDouble),
                        rows.to(teacher_logits.device())},
                       1);
    ranks.all_reduce_sum(sum);
    const auto count = sum.select(1, -1).item<double>();
    const auto centre = centre_.to(at::kDouble);
    const auto mean = count > 0 ? sum.narrow(1, 0, centre.size(1)) / count : centre;
    next_centre_ = (momentum_ * centre + (1.0 - momentum_) * mean).to(at::kFloat);
}

std::map<std::string, at::Tensor> DinoCentre::state() const
{
    return {{"centre", centre_}, {"next_centre", next_centre_}};
}

void DinoCentre::load_state(const std::map<std::string, at::Tensor>& state)
{
    const auto part = [&](const std::string& name) {
        const auto found = state.find(name);
        if (found == state.end() || found->second.sizes() != centre_.sizes()) {
            throw DataError("DINO centre", fmt::format("tensor '{}' is missing or not of shape [1, {}]", name,
                                                       centre_.size(1)));
        }
        return found->second.to(centre_.options()).clone();
    };
    const auto next = part("next_centre");
    centre_ = part("centre");
    next_centre_ = next;
}

namespace {

// Σ_s mean_b[-Σ_k target_k log softmax(student_s/temperature)_k], chunk by chunk: between forward and
// backward it keeps one log-sum-exp a row.
class SoftCrossEntropy : public torch::autograd::Function<SoftCrossEntropy> {
public:
    static at::Tensor forward(AutogradContext* context, const at::Tensor& student, const at::Tensor& target,
                              double temperature)
    {
        const c10::impl::ExcludeDispatchKeyGuard full_precision(c10::autocast_dispatch_keyset);
        const auto batch = target.size(0);
        const auto mass = target.sum(1);
        auto loss = at::zeros({}, target.options());
        std::vector<at::Tensor> log_sums;
        for (const auto& chunk : student.split(batch)) {
            const auto logits = chunk.to(target.scalar_type()) / temperature;
            log_sums.push_back(logits.logsumexp(1));
            loss += (log_sums.back() * mass).sum() - (logits * target).sum();
        }
        context->save_for_backward({student, target, mass, at::cat(log_sums)});
        context->saved_data["temperature"] = temperature;
        return loss / batch;
    }

    static variable_list backward(AutogradContext* context, variable_list upstream)
    {
        const c10::impl::ExcludeDispatchKeyGuard full_precision(c10::autocast_dispatch_keyset);
        const auto saved = context->get_saved_variables();
        const auto &student = saved[0], &target = saved[1], &mass = saved[2], &log_sums = saved[3];
        const auto temperature = context->saved_data["temperature"].toDouble();
        const auto batch = target.size(0);
        const auto factor = upstream[0] / (static_cast<double>(batch) * temperature);
        const auto grad = at::empty_like(student);
        for (std::int64_t first = 0; first < student.size(0); first += batch) {
            const auto logits = student.narrow(0, first, batch).to(target.scalar_type()) / temperature;
            const auto softmax = (logits - log_sums.narrow(0, first, batch).unsqueeze(1)).exp_();
            grad.narrow(0, first, batch).copy_(softmax.mul_(mass.unsqueeze(1)).sub_(target).mul_(factor));
        }
        return {grad, at::Tensor(), at::Tensor()};
    }
};

}  // namespace

at::Tensor dino_cross_entropy(const at::Tensor& student_logits, const at::Tensor& targets, std::int64_t batch,
                              double student_temperature)
{
    if (student_logits.size(0) % batch != 0 || targets.size(0) % batch != 0) {
        throw InternalError(fmt::format("DINO loss: {} student and {} teacher rows are not chunks of {}",
                                        student_logits.size(0), targets.size(0), batch));
    }
    // The sum over pairs of chunks is the cross-entropy of each student chunk with the sum of the target
    // chunks.
    const auto type = student_logits.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
    const auto summed = targets.detach().to(type).view({-1, batch, targets.size(1)}).sum(0);
    return SoftCrossEntropy::apply(student_logits, summed, student_temperature);
}

DinoTerms dino_terms(const at::Tensor& student_global, const at::Tensor& student_local,
                     const at::Tensor& targets, double student_temperature)
{
    const auto batch = targets.size(0) / 2;
    const auto local_crops = student_local.size(0) / batch;
    const auto pairs = static_cast<double>(2 + 2 * local_crops);
    const auto swapped = targets.roll(batch, 0);
    DinoTerms terms;
    terms.global =
        dino_cross_entropy(student_global, swapped, 2 * batch, student_temperature) * (2.0 / pairs);
    terms.local = local_crops > 0
                      ? dino_cross_entropy(student_local, targets, batch, student_temperature) / pairs
                      : at::zeros({}, terms.global.options());
    return terms;
}

at::Tensor sinkhorn_targets(comm::Communicator& ranks, const at::Tensor& teacher_logits, double temperature,
                            int iterations)
{
    const at::NoGradGuard no_grad;
    const auto over_ranks = [&](at::Tensor sum) {
        ranks.all_reduce_sum(sum);
        return sum;
    };
    auto mass = (teacher_logits.to(at::kDouble) / temperature).exp_();
    for (int i = 0; i < iterations; ++i) {
        mass /= over_ranks(mass.sum(0, true));  // what a prototype gets of all rows
        mass /= mass.sum(1, true);              // what a row gives to all prototypes
    }
    return mass.to(at::kFloat);
}

at::Tensor group_means(const at::Tensor& rows, at::IntArrayRef rows_of_group)
{
    std::vector<at::Tensor> means;
    for (const auto& group : rows.split_with_sizes(rows_of_group)) {
        if (group.size(0) > 0) means.push_back(group.mean(at::OptionalIntArrayRef({0}), false, at::kDouble));
    }
    return means.empty() ? rows.new_empty({0, rows.size(1)}, at::kDouble) : at::stack(means);
}

at::Tensor masked_patch_weights(const at::Tensor& masks)
{
    const auto masked = masks.sum(1, true).clamp_min(1).to(at::kFloat);
    return masked.reciprocal().expand(masks.sizes()).masked_select(masks);
}

at::Tensor ibot_loss(const at::Tensor& student_logits, const at::Tensor& targets, const at::Tensor& weights,
                     std::int64_t images, double student_temperature)
{
    const auto rows = targets.size(0);
    if (rows == 0) return student_logits.sum() / static_cast<double>(images);  // 0, and a gradient of 0
    const auto weighted = targets * weights.unsqueeze(1);
    return dino_cross_entropy(student_logits, weighted, rows, student_temperature) *
           (static_cast<double>(rows) / static_cast<double>(images));
}

namespace {

// Unit rows in groups, [groups, group_rows, D]. In float64: an encoder that has learned nothing yet gives
// rows so alike that in float32 rounding would choose the neighbours, and that depends on the ranks.
at::Tensor unit_rows_in_groups(const at::Tensor& x, std::int64_t group_rows)
{
    if (group_rows < 2 || x.size(0) % group_rows != 0) {
        throw InternalError(
            fmt::format("KoLeo: {} rows are not groups of {} (2 or more)", x.size(0), group_rows));
    }
    const auto wide = x.to(at::kDouble);
    return (wide / wide.norm(2, {1}, true).clamp_min(1e-8)).view({-1, group_rows, x.size(1)});
}

at::Tensor nearest_of_unit_rows(const at::Tensor& groups)
{
    const at::NoGradGuard no_grad;
    auto cosines = groups.bmm(groups.transpose(1, 2));
    cosines.diagonal(0, 1, 2).fill_(-1);
    const auto group_rows = groups.size(1);
    const auto first = at::arange(groups.size(0), cosines.options().dtype(at::kLong)) * group_rows;
    return (cosines.argmax(2) + first.unsqueeze(1)).flatten();
}

}  // namespace

at::Tensor nearest_in_group(const at::Tensor& x, std::int64_t group_rows)
{
    const c10::impl::ExcludeDispatchKeyGuard full_precision(c10::autocast_dispatch_keyset);
    return nearest_of_unit_rows(unit_rows_in_groups(x, group_rows));
}

at::Tensor koleo_loss(const at::Tensor& x, std::int64_t group_rows)
{
    const c10::impl::ExcludeDispatchKeyGuard full_precision(c10::autocast_dispatch_keyset);
    const auto groups = unit_rows_in_groups(x, group_rows);
    const auto rows = groups.flatten(0, 1);
    const auto others = rows.index_select(0, nearest_of_unit_rows(groups));
    const auto loss = -(at::pairwise_distance(rows, others, 2, 1e-8) + 1e-8).log().mean();
    return x.scalar_type() == at::kDouble ? loss : loss.to(at::kFloat);
}

}  // namespace astroclip::ssl
