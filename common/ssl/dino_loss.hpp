#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <map>
#include <string>

#include "comm/communicator.hpp"

namespace astroclip::ssl {

// The teacher's side of DINO (Caron et al. 2021): the centre of its logits, a moving average over all ranks'
// batches that is applied one step late: what `update` computes is used from the next `targets` on.
class DinoCentre {
public:
    explicit DinoCentre(std::int64_t prototypes, double momentum = 0.9, at::Device device = at::kCPU);

    // softmax((logits - centre)/temperature), [n, K] float32, without gradient. Takes up the last update.
    at::Tensor targets(const at::Tensor& teacher_logits, double temperature);

    // Mean of the logits [n, K] over the rows of all ranks (equal n) -> the centre of the next step.
    // Collective.
    void update(comm::Communicator& ranks, const at::Tensor& teacher_logits);

    const at::Tensor& centre() const { return centre_; }  // [1, K] float32, as the last `targets` used it

    // For checkpoints: {"centre", "next_centre"}, both [1, K].
    std::map<std::string, at::Tensor> state() const;
    void load_state(const std::map<std::string, at::Tensor>& state);  // throws DataError

private:
    double momentum_;
    at::Tensor centre_, next_centre_;
};

// Σ over all pairs of a student chunk and a target chunk of mean_b[-Σ_k target log
// softmax(student/temperature)].
//
//   student_logits  [S·b, K] in S chunks of b rows; any float type, computed in float32 one chunk at a time
//   targets         [T·b, K] float32 distributions in T chunks
at::Tensor dino_cross_entropy(const at::Tensor& student_logits, const at::Tensor& targets, std::int64_t batch,
                              double student_temperature = 0.1);

// The two DINO terms on the cls token, both already divided by the number of pairs (2 global, 2·local_crops
// local). Means over this rank's b images: the mean over ranks is the global one.
struct DinoTerms {
    at::Tensor global;
    at::Tensor local;  // 0 without local crops
};

//   student_global  [2b, K] logits, crops A then crops B    student_local  [local_crops·b, K], may be empty
//   targets         [2b, K], crops A then crops B; crop A of the student learns from crop B of the teacher
DinoTerms dino_terms(const at::Tensor& student_global, const at::Tensor& student_local,
                     const at::Tensor& targets, double student_temperature = 0.1);

}  // namespace astroclip::ssl
