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
// distance 0, only those count, equally. Exact, in float64.
//
//   train [n, d], targets [n, p] or [n]; any float type, finite. Fewer than k training rows: all of them.
//   Throws DataError for an empty training set.
class KnnRegression {
public:
    static constexpr std::int64_t queries_at_once = 64;  // for which memory and speed are good

    KnnRegression(const at::Tensor& train, const at::Tensor& targets, const KnnConfig& config = {});

    struct Prediction : KnnResult {
        at::Tensor scatter;  // [m, p] float64, weighted standard deviation of the neighbours' targets
    };
    // query [m, d]. `own` [m] int64: the training row that a query itself is, which has no weight; -1: none
    // is. NaN where there is no other training row.
    Prediction predict(const at::Tensor& query, const at::Tensor& own = {}) const;
    std::int64_t neighbours() const { return neighbours_; }
    std::int64_t targets() const { return targets_.size(1); }

private:
    at::Tensor prepared(const at::Tensor& x) const;

    ColumnScale scale_;
    bool standardise_;
    at::Tensor train_, train_square_, targets_;
    std::int64_t neighbours_;
};

// The same with the queries [m, d] shared out among the ranks; all ranks give the same arguments and get the
// whole result, which does not depend on their number. Collective.
KnnResult knn_regression(const comm::World& world, const at::Tensor& train, const at::Tensor& targets,
                         const at::Tensor& query, const KnnConfig& config = {});

}  // namespace astroclip::catalogue
