#include "catalogue/regression.hpp"

#include <ATen/ATen.h>

#include <algorithm>
#include <limits>
#include <span>
#include <tuple>
#include <vector>

#include "core/error.hpp"
#include "core/heartbeat.hpp"

namespace astroclip::catalogue {

ColumnScale ColumnScale::of(const at::Tensor& columns)
{
    const auto x = columns.to(at::kDouble);
    const auto std = x.std(at::OptionalIntArrayRef({0}), at::Scalar(0), false);
    return {x.mean(0), at::where(std > 0, std, at::ones_like(std))};
}

at::Tensor ColumnScale::standardise(const at::Tensor& x) const { return (x.to(at::kDouble) - mean) / std; }

namespace {

struct Nearest {
    at::Tensor distance, rows;  // [q, k], nearest first
};

Nearest k_nearest(const at::Tensor& train, const at::Tensor& train_square, const at::Tensor& query,
                  const at::Tensor& own, std::int64_t k)
{
    // |a|² - 2ab orders the rows but for rounding (and cannot tell a distance of 0); a few more rows than
    // needed are taken by it, and ordered by their true distances.
    constexpr std::int64_t spare = 16;
    const auto order = at::addmm(train_square.unsqueeze(0), query, train.t(), 1.0, -2.0);
    const auto candidates = std::get<1>(order.topk(std::min(k + spare, train.size(0)), 1, false));
    const auto rows = std::get<0>(candidates.sort(1, false));
    const auto apart =
        train.index_select(0, rows.flatten()).view({rows.size(0), rows.size(1), -1}) - query.unsqueeze(1);
    auto distances = at::linalg_vector_norm(apart, 2, at::IntArrayRef{2});
    if (own.defined()) {
        distances.masked_fill_(rows == own.unsqueeze(1), std::numeric_limits<double>::infinity());
    }
    const auto [distance, place] = distances.sort(true, 1, false);
    return {distance.narrow(1, 0, k), rows.gather(1, place).narrow(1, 0, k)};
}

// Mean and scatter of each query's neighbours with the weights w = 1/distance, or 1 on the neighbours at
// distance 0 if there are any.
std::pair<at::Tensor, at::Tensor> weighted_mean(const at::Tensor& targets, const Nearest& nearest)
{
    const auto& [distance, rows] = nearest;
    const auto zero = distance == 0;
    const auto weight =
        at::where(zero.any(1, true), zero.to(at::kDouble), distance.reciprocal()).unsqueeze(2);
    const auto values =
        targets.index_select(0, rows.flatten()).view({rows.size(0), rows.size(1), targets.size(1)});
    const auto mean = (values * weight).sum(1) / weight.sum(1);
    const auto variance = ((values - mean.unsqueeze(1)).square() * weight).sum(1) / weight.sum(1);
    return {mean, variance.sqrt()};
}

// The ranks' blocks of queries, one after the other, as [m, columns].
template <typename T>
at::Tensor gather_blocks(const comm::World& world, const std::vector<at::Tensor>& blocks,
                         std::int64_t columns)
{
    std::vector<T> local;
    for (const auto& block : blocks) {
        const auto values = block.contiguous();
        local.insert(local.end(), values.data_ptr<T>(), values.data_ptr<T>() + values.numel());
    }
    const auto all = world.all_gather(local);
    return at::tensor(at::ArrayRef<T>(all), at::CppTypeToScalarType<T>::value).view({-1, columns});
}

}  // namespace

KnnRegression::KnnRegression(const at::Tensor& train, const at::Tensor& targets, const KnnConfig& config)
    : standardise_(config.standardise), neighbours_(std::min<std::int64_t>(config.neighbours, train.size(0)))
{
    if (train.size(0) == 0) {
        throw DataError("k-nearest-neighbour regression", "the training set is empty");
    }
    scale_ = ColumnScale::of(train);
    train_ = prepared(train);
    train_square_ = train_.square().sum(1);
    targets_ = targets.to(at::kDouble).view({train.size(0), -1});
}

at::Tensor KnnRegression::prepared(const at::Tensor& x) const
{
    return standardise_ ? scale_.standardise(x) : x.to(at::kDouble);
}

KnnRegression::Prediction KnnRegression::predict(const at::Tensor& query, const at::Tensor& own) const
{
    const auto nearest = k_nearest(train_, train_square_, prepared(query), own, neighbours_);
    const auto [mean, scatter] = weighted_mean(targets_, nearest);
    return {{mean, nearest.rows}, scatter};
}

KnnResult knn_regression(const comm::World& world, const at::Tensor& train, const at::Tensor& targets,
                         const at::Tensor& query, const KnnConfig& config)
{
    const KnnRegression regression(train, targets, config);
    constexpr auto at_once = KnnRegression::queries_at_once;
    const auto blocks = (query.size(0) + at_once - 1) / at_once;
    std::vector<at::Tensor> predicted, neighbours;
    for (auto block = blocks * world.rank() / world.size();
         block < blocks * (world.rank() + 1) / world.size(); ++block) {
        alive("neighbours of a block of galaxies");
        const auto first = block * at_once;
        const auto some =
            regression.predict(query.narrow(0, first, std::min(at_once, query.size(0) - first)));
        predicted.push_back(some.predicted);
        neighbours.push_back(some.neighbours);
    }
    return {gather_blocks<double>(world, predicted, regression.targets()),
            gather_blocks<std::int64_t>(world, neighbours, regression.neighbours())};
}

}  // namespace astroclip::catalogue
