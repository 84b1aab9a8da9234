#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>

#include "comm/communicator.hpp"
#include "nn/dino_head.hpp"
#include "ssl/dino_loss.hpp"

namespace astroclip::bench {

// Tokens of a batch of b images, two global and eight local crops each, that heads are given.
struct HeadTokens {
    at::Tensor global, local, taught;  // cls: [2b, width] and [8b, width] of the student, [2b, width] of the
                                       // teacher, crops A then B
    at::Tensor hidden = {},
               hidden_taught = {};  // patches that the student does not see [M, width]; undefined: none
};

// The projection heads of student and teacher, and the losses of DINO on cls tokens and of iBOT on hidden
// patches.
class DinoHeads {
public:
    DinoHeads(std::int64_t width, const nn::DinoHeadConfig& config);

    // As pretrain-image does it: logits some rows at a time, their gradients with them.
    at::Tensor loss(const HeadTokens& tokens);
    // The same with all logits at once, through the heads' layers.
    at::Tensor plain_loss(const HeadTokens& tokens);
    void after_step(comm::Communicator& ranks);

    const nn::DinoHead& student() const { return student_; }

private:
    nn::DinoHead student_, teacher_;
    ssl::DinoCentre centre_, patch_centre_;
    at::Tensor mean_, patch_mean_;  // of the teacher's logits
};

// The heads of a batch by themselves, forward and backward, on random tokens, with as many hidden patches as
// published crops have on average: 0.3 of the 144 of every second global crop. `plain`: by plain_loss.
std::function<void()> dino_heads(std::int64_t width, const nn::DinoHeadConfig& config, std::int64_t batch,
                                 const std::string& precision, bool plain, comm::Communicator& ranks);

}  // namespace astroclip::bench
