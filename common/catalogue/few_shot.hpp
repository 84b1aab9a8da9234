#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

namespace astroclip::catalogue {

// "Few-shot" regression of the published code: a small network on frozen embeddings, few epochs, no
// validation, the last weights (the defaults).
struct FewShotConfig {
    std::vector<std::int64_t> hidden{64, 64};  // redshift from images: {32}
    double dropout = 0.1;
    double learning_rate = 1e-3;
    int batch = 64;
    int epochs = 10;
    // Above 0 as the published supervised baselines: so many rows are held out, and the epoch of their least
    // loss is kept.
    double validation_fraction = 0;
    int patience = 0;  // with that: epochs without a smaller loss after which it ends; 0: it never does
    std::uint64_t seed = 42;
};

// Features and targets are standardised by the training set (population deviation), the loss is their mean
// squared error, the optimiser Adam. All targets are outputs of one network.
//
//   train [n, d], targets [n, p] or [n], query [m, d]; any float type, finite
//   Throws DataError for an empty training set; NumericsError if the predictions, or all epochs' losses, are
//   not finite.
struct FewShot {
    at::Tensor predicted;  // [m, p] float64
    int epoch;             // whose weights these are, from 1
    int trained;           // epochs
};
FewShot few_shot_regression(const at::Tensor& train, const at::Tensor& targets, const at::Tensor& query,
                            const FewShotConfig& config);

}  // namespace astroclip::catalogue
