#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "comm/world.hpp"

namespace astroclip::catalogue {

// Posteriors of properties given an embedding, by an ensemble of conditional spline flows, as the published
// evaluation has them: base N(0, 1), a stack of two or three splines whose shapes a small network gives, no
// permutation between them, so that each property is handled alone.
struct PosteriorConfig {
    int flows = 10;
    int bins = 8;
    double learning_rate = 5e-4, last_learning_rate = 1e-6;  // cosine, by epoch
    int batch = 128;
    int epochs = 25;
    int patience_from = 10;  // stops after it when the validation loss exceeds the mean of the last five
    double validation_fraction = 0.2;  // above 0
    std::uint64_t seed = 42;
};

// What the ensemble says of m galaxies whose properties are known.
struct Posteriors {
    at::Tensor nll;  // [flows] mean negative log-likelihood of the test set, nats, of standardised properties
    at::Tensor pit;  // [m, p] share of the (mixture) posterior below the truth: uniform if it is calibrated
    std::vector<int> epochs;  // of each flow until its best
};

// Trains the ensemble and asks it. The embedding is standardised by one global mean and deviation, the
// properties each by their own (sample deviation). The flows are shared out among the ranks; each is a
// function of the seed alone, so the result does not depend on their number. Collective.
//
//   train [n, d], targets [n, p]; query [m, d], truth [m, p]; finite. The best epoch's weights are tested
//   (the published code tests the last). DataError for fewer than 20 training rows,
//   or if the embedding does not vary; NumericsError if no epoch of a flow was finite.
Posteriors estimate_posteriors(const comm::World& world, const at::Tensor& train, const at::Tensor& targets,
                               const at::Tensor& query, const at::Tensor& truth,
                               const PosteriorConfig& config);

// Of values that should be uniform on [0, 1]: the largest distance of their distribution from it
// (Kolmogorov-Smirnov), and the share within the central intervals of 68 and 95 %.
struct Calibration {
    double ks = 0, within_68 = 0, within_95 = 0;
};
Calibration calibration(std::vector<double> pit);

}  // namespace astroclip::catalogue
