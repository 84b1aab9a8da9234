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

    // The last update counts from now on.
    void take_up() { centre_ = next_centre_; }
    // softmax((logits - centre)/temperature), [n, K] float32, without gradient.
    at::Tensor sharpened(const at::Tensor& teacher_logits, double temperature) const;
    // Takes up the last update and sharpens.
    at::Tensor targets(const at::Tensor& teacher_logits, double temperature);

    // Mean of the logits [n, K] over the rows of all ranks (n may differ; without any row the centre stays)
    // -> the centre of the next step. For patches the rows are `group_means`. Collective.
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

// Balanced targets instead of centred ones (SwAV, Caron et al. 2020): Sinkhorn-Knopp makes the assignment
// exp(logits/temperature) of the rows of all ranks give every prototype the same mass, rows summing to 1 in
// the end. In float64, whose exponent no |logits|/temperature below 700 leaves.
//
//   teacher_logits  [n, K], cls or masked patches; n may differ between ranks and be 0
//   return          [n, K] float32, without gradient. Collective.
at::Tensor sinkhorn_targets(comm::Communicator& ranks, const at::Tensor& teacher_logits, double temperature,
                            int iterations = 3);

// Means of consecutive groups of rows [M, K] -> [groups that have rows, K] float64: the teacher's patch
// logits of a group of images count as one, however many patches are masked.
at::Tensor group_means(const at::Tensor& rows, at::IntArrayRef rows_of_group);

// 1/(number of masked patches of the same image) for every masked patch, in row-major order.
//   masks  [B, N] bool -> [M] float32
at::Tensor masked_patch_weights(const at::Tensor& masks);

// iBOT (Zhou et al. 2022) on the masked patches: Σ weight·(-Σ_k target log softmax(student/temperature)),
// divided by the number of images (crops, masked or not).
//
//   student_logits, targets  [M, K], of the masked patches alone    weights  [M], masked_patch_weights
at::Tensor ibot_loss(const at::Tensor& student_logits, const at::Tensor& targets, const at::Tensor& weights,
                     std::int64_t images, double student_temperature = 0.1);

// Row of the nearest other row in the same group of `group_rows` consecutive rows: that with the largest
// cosine. x [n, D] -> [n] int64, numbered within x.
at::Tensor nearest_in_group(const at::Tensor& x, std::int64_t group_rows);

// KoLeo (Sablayrolles et al. 2019): -mean log(distance to the nearest other row of the group + 1e-8), of unit
// rows, in float64; it spreads the cls tokens before the head. Published per half of a batch, so
// the term of the crops A and B together is twice this mean over both.
//
//   x  [n, D], n a multiple of group_rows >= 2; crop A and crop B of an image are never in one group
at::Tensor koleo_loss(const at::Tensor& x, std::int64_t group_rows);

}  // namespace astroclip::ssl
