#pragma once

#include <ATen/core/Tensor.h>

#include <string>

#include "comm/communicator.hpp"

namespace astroclip::ssl {

// The two sums whose ratio is the masked-modelling loss, over the elements that the mask changed (masked and
// not zero before, so that padding never counts). 0-dimensional, float32 (float64 is kept).
struct MaskedSums {
    at::Tensor squared_error;  // Σ m w (prediction - target)², carries the gradient
    at::Tensor count;          // Σ m w
};

//   prediction, target, masked_input  [B, N, F];  weight w [B, N, F], undefined: 1
MaskedSums masked_sums(const at::Tensor& prediction, const at::Tensor& target, const at::Tensor& masked_input,
                       const at::Tensor& weight = {});

struct MaskedLoss {
    at::Tensor share;    // to call backward on: its mean over ranks is the loss, and so are its gradients'
    double loss = 0.0;   // Σ squared_error / Σ count over all ranks
    double count = 0.0;  // Σ count over all ranks; 0 for a batch of zero spectra, whose loss is 0
};

// global: one ratio over the global batch, so that the loss does not depend on the number of ranks.
// rank: the mean of the ranks' own ratios, as the published code's data parallelism has it; the two differ
// where ranks differ in Σ m.
enum class MaskedRatio { global, rank };
MaskedRatio masked_ratio(const std::string& name);  // ConfigError for another name

// Collective.
MaskedLoss masked_spectrum_loss(comm::Communicator& ranks, const MaskedSums& local,
                                MaskedRatio ratio = MaskedRatio::global);

}  // namespace astroclip::ssl
