#include "tools/bench_heads.hpp"

#include <ATen/ATen.h>

#include <cmath>
#include <memory>

#include "ssl/prototype_loss.hpp"
#include "train/precision.hpp"

namespace astroclip::bench {
namespace {

constexpr std::int64_t local_crops = 8;
constexpr double pairs = 2 + 2 * local_crops;  // of a student's and a teacher's crop
constexpr double teacher_temperature = 0.04;
constexpr double hidden_patches = 0.3 * 144;  // of an image, as one of its two global crops hides any

nn::DinoHead filled(std::int64_t width, const nn::DinoHeadConfig& config)
{
    nn::DinoHead head(width, config);
    nn::initialise(*head, 1);
    return head;
}

}  // namespace

DinoHeads::DinoHeads(std::int64_t width, const nn::DinoHeadConfig& config)
    : student_(filled(width, config)),
      teacher_(filled(width, config)),
      centre_(config.prototypes),
      patch_centre_(config.prototypes)
{
}

at::Tensor DinoHeads::loss(const HeadTokens& tokens)
{
    const auto batch = tokens.global.size(0) / 2;
    at::Tensor features, patches, weights;
    {
        const at::NoGradGuard no_grad;
        features = teacher_->features(tokens.taught);
        weights = teacher_->prototypes().to(features.scalar_type());
        mean_ = at::linear(features.mean(0, true), weights).to(at::kFloat);
        centre_.take_up();
        if (tokens.hidden.defined()) {
            patches = teacher_->features(tokens.hidden_taught);
            patch_mean_ = at::linear(patches.mean(0, true), weights).to(at::kFloat);
            patch_centre_.take_up();
        }
    }
    const ssl::TargetRows targets = [&](std::int64_t first, std::int64_t count) {
        return centre_.sharpened(at::linear(features.narrow(0, first, count), weights), teacher_temperature);
    };
    const ssl::TargetRows patch_targets = [&](std::int64_t first, std::int64_t count) {
        return patch_centre_.sharpened(at::linear(patches.narrow(0, first, count), weights),
                                       teacher_temperature);
    };
    const ssl::TargetRows both = [&](std::int64_t first, std::int64_t count) {
        return targets(first, count) + targets(batch + first, count);
    };
    const auto prototypes = student_->prototypes();
    const auto swapped = student_->features(tokens.global).roll(batch, 0);
    auto loss =
        ssl::prototype_cross_entropy(swapped, prototypes, 2 * batch, targets) * (2 / pairs) +
        ssl::prototype_cross_entropy(student_->features(tokens.local), prototypes, batch, both) / pairs;
    if (tokens.hidden.defined()) {
        loss = loss + ssl::prototype_cross_entropy(student_->features(tokens.hidden), prototypes,
                                                   tokens.hidden.size(0), patch_targets);
    }
    return loss;
}

at::Tensor DinoHeads::plain_loss(const HeadTokens& tokens)
{
    at::Tensor targets, patch_targets;
    {
        const at::NoGradGuard no_grad;
        const auto logits = teacher_->forward(tokens.taught);
        mean_ = logits.mean(0, true).to(at::kFloat);
        targets = centre_.targets(logits, teacher_temperature);
        if (tokens.hidden.defined()) {
            const auto patch_logits = teacher_->forward(tokens.hidden_taught);
            patch_mean_ = patch_logits.mean(0, true).to(at::kFloat);
            patch_targets = patch_centre_.targets(patch_logits, teacher_temperature);
        }
    }
    const auto terms =
        ssl::dino_terms(student_->forward(tokens.global), student_->forward(tokens.local), targets);
    auto loss = terms.global + terms.local;
    if (tokens.hidden.defined()) {
        const auto rows = tokens.hidden.size(0);
        const auto weights = at::full({rows}, 1.0 / static_cast<double>(rows), at::kFloat);
        loss = loss + ssl::ibot_loss(student_->forward(tokens.hidden), patch_targets, weights, 1);
    }
    return loss;
}

void DinoHeads::after_step(comm::Communicator& ranks)
{
    centre_.update(ranks, mean_);
    if (patch_mean_.defined()) patch_centre_.update(ranks, patch_mean_);
}

std::function<void()> dino_heads(std::int64_t width, const nn::DinoHeadConfig& config, std::int64_t batch,
                                 const std::string& precision, bool plain, comm::Communicator& ranks)
{
    const auto random = [&](std::int64_t rows) { return at::randn({rows, width}, at::kFloat); };
    const auto hidden = std::llround(hidden_patches * static_cast<double>(batch));
    const auto heads = std::make_shared<DinoHeads>(width, config);
    const HeadTokens tokens{random(2 * batch).requires_grad_(true),
                            random(local_crops * batch).requires_grad_(true), random(2 * batch),
                            random(hidden).requires_grad_(true), random(hidden)};
    return [=, &ranks] {
        for (const auto& parameter : heads->student()->parameters()) parameter.mutable_grad() = at::Tensor();
        for (const auto* each : {&tokens.global, &tokens.local, &tokens.hidden})
            each->mutable_grad() = at::Tensor();
        at::Tensor loss;
        {
            const train::Autocast autocast(precision, at::kCPU);
            loss = plain ? heads->plain_loss(tokens) : heads->loss(tokens);
        }
        loss.backward();
        heads->after_step(ranks);
    };
}

}  // namespace astroclip::bench
