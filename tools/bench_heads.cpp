#include "tools/bench_heads.hpp"

#include <ATen/ATen.h>

#include <memory>

#include "ssl/prototype_loss.hpp"
#include "train/precision.hpp"

namespace astroclip::bench {
namespace {

constexpr std::int64_t local_crops = 8;
constexpr double pairs = 2 + 2 * local_crops;  // of a student's and a teacher's crop
constexpr double teacher_temperature = 0.04;

nn::DinoHead filled(std::int64_t width, const nn::DinoHeadConfig& config)
{
    nn::DinoHead head(width, config);
    nn::initialise(*head, 1);
    return head;
}

}  // namespace

DinoHeads::DinoHeads(std::int64_t width, const nn::DinoHeadConfig& config)
    : student_(filled(width, config)), teacher_(filled(width, config)), centre_(config.prototypes)
{
}

at::Tensor DinoHeads::loss(const at::Tensor& global, const at::Tensor& local, const at::Tensor& taught)
{
    const auto batch = global.size(0) / 2;
    at::Tensor features, weights;
    {
        const at::NoGradGuard no_grad;
        features = teacher_->features(taught);
        weights = teacher_->prototypes().to(features.scalar_type());
        mean_ = at::linear(features.mean(0, true), weights).to(at::kFloat);
        centre_.take_up();
    }
    const ssl::TargetRows targets = [&](std::int64_t first, std::int64_t count) {
        return centre_.sharpened(at::linear(features.narrow(0, first, count), weights), teacher_temperature);
    };
    const ssl::TargetRows both = [&](std::int64_t first, std::int64_t count) {
        return targets(first, count) + targets(batch + first, count);
    };
    const auto prototypes = student_->prototypes();
    const auto swapped = student_->features(global).roll(batch, 0);
    return ssl::prototype_cross_entropy(swapped, prototypes, 2 * batch, targets) * (2 / pairs) +
           ssl::prototype_cross_entropy(student_->features(local), prototypes, batch, both) / pairs;
}

at::Tensor DinoHeads::plain_loss(const at::Tensor& global, const at::Tensor& local, const at::Tensor& taught)
{
    at::Tensor targets;
    {
        const at::NoGradGuard no_grad;
        const auto logits = teacher_->forward(taught);
        mean_ = logits.mean(0, true).to(at::kFloat);
        targets = centre_.targets(logits, teacher_temperature);
    }
    const auto terms = ssl::dino_terms(student_->forward(global), student_->forward(local), targets);
    return terms.global + terms.local;
}

std::function<void()> dino_heads(std::int64_t width, const nn::DinoHeadConfig& config, std::int64_t batch,
                                 const std::string& precision, bool plain, comm::Communicator& ranks)
{
    const auto tokens = [&](std::int64_t crops) { return at::randn({crops * batch, width}, at::kFloat); };
    const auto heads = std::make_shared<DinoHeads>(width, config);
    return [=, &ranks, global = tokens(2).requires_grad_(true),
            local = tokens(local_crops).requires_grad_(true), taught = tokens(2)]() mutable {
        for (const auto& parameter : heads->student()->parameters()) parameter.mutable_grad() = at::Tensor();
        global.mutable_grad() = local.mutable_grad() = at::Tensor();
        at::Tensor loss;
        {
            const train::Autocast autocast(precision, at::kCPU);
            loss = plain ? heads->plain_loss(global, local, taught) : heads->loss(global, local, taught);
        }
        loss.backward();
        heads->after_step(ranks);
    };
}

}  // namespace astroclip::bench
