#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "comm/world.hpp"

namespace astroclip::catalogue {

// Mean and population standard deviation per column of the training set; a deviation of 0 counts as 1.
// float64.
struct ColumnScale {
    at::Tensor mean, std;  // [d]

    static ColumnScale of(const at::Tensor& columns);  // [n, d], any float type
    at::Tensor standardise(const at::Tensor& x) const;
};

struct KnnConfig {
    int neighbours = 64;
    bool standardise = true;  // of the features, by the training set
};

struct KnnResult {
    at::Tensor predicted;   // [m, p] float64
    at::Tensor neighbours;  // [m, k] int64, rows of the training set, nearest first (equal distances: lower
                            // row first)
};

// Regression by the k nearest neighbours in Euclidean distance, weighted by 1/distance; if some of them have
// distance 0, only those count, equally. Exact, in float64. Queries are shared out among the ranks; all ranks
// give the same arguments and get the whole result, which does not depend on their number. Collective.
//
//   train [n, d], targets [n, p] or [n], query [m, d]; any float type, finite. Fewer than k training rows:
//   all of them. Throws DataError for an empty training set.
KnnResult knn_regression(const comm::World& world, const at::Tensor& train, const at::Tensor& targets,
                         const at::Tensor& query, const KnnConfig& config = {});

}  // namespace astroclip::catalogue
