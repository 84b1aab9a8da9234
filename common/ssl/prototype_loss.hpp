#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>

namespace astroclip::ssl {

// The targets of rows [first, first + count) of a batch: distributions over K prototypes, perhaps weighted,
// [count, K] in float32 (float64 for float64 features). Asked for in order, once a row.
using TargetRows = std::function<at::Tensor(std::int64_t first, std::int64_t count)>;

// dino_cross_entropy of the logits features·prototypesᵀ (dino_loss.hpp: the plain form, of the same value)
// without these logits: they are made some rows at a time, about 16 MiB of them, and each piece gives its
// share of the gradients at once. With 65,536 prototypes the logits of a batch are gigabytes; what lives
// between forward and backward here is as large as features and prototypes.
//
//   features    [S·batch, d] in S chunks of `batch` rows; float32, float64 or, under autocast, bfloat16: the
//               type of the matrix products. Softmax and sums are float32 or better.
//   prototypes  [K, d]
//   return      Σ_s mean_b[-Σ_k target_k log softmax(logits/student_temperature)_k]
at::Tensor prototype_cross_entropy(const at::Tensor& features, const at::Tensor& prototypes,
                                   std::int64_t batch, const TargetRows& targets,
                                   double student_temperature = 0.1);

}  // namespace astroclip::ssl
