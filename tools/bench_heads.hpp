#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>

#include "comm/communicator.hpp"
#include "nn/dino_head.hpp"
#include "ssl/dino_loss.hpp"

namespace astroclip::bench {

// The projection heads of student and teacher, and DINO's loss on the cls tokens of a batch of b images: two
// global and eight local crops each.
class DinoHeads {
public:
    DinoHeads(std::int64_t width, const nn::DinoHeadConfig& config);

    // As pretrain-image does it: logits some rows at a time, their gradients with them.
    //   global, taught  [2b, width] of student and teacher, crops A then B    local  [8b, width]
    at::Tensor loss(const at::Tensor& global, const at::Tensor& local, const at::Tensor& taught);
    // The same with all logits at once, through the heads' layers.
    at::Tensor plain_loss(const at::Tensor& global, const at::Tensor& local, const at::Tensor& taught);
    void after_step(comm::Communicator& ranks) { centre_.update(ranks, mean_); }

    const nn::DinoHead& student() const { return student_; }

private:
    nn::DinoHead student_, teacher_;
    ssl::DinoCentre centre_;
    at::Tensor mean_;  // of the teacher's logits
};

// The heads of a batch by themselves, forward and backward, on random cls tokens; `plain`: by plain_loss.
std::function<void()> dino_heads(std::int64_t width, const nn::DinoHeadConfig& config, std::int64_t batch,
                                 const std::string& precision, bool plain, comm::Communicator& ranks);

}  // namespace astroclip::bench
