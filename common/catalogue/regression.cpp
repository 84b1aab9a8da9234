#include "catalogue/regression.hpp"

#include <ATen/ATen.h>

#include <algorithm>
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

constexpr std::int64_t queries_at_once = 64;

// Distances [q, k] and rows [q, k] of the k nearest training rows, nearest first.
std::pair<at::Tensor, at::Tensor> k_nearest(const at::Tensor& train, const at::Tensor& train_square,
                                            const at::Tensor& query, std::int64_t k)
{
    // |a|² - 2ab orders the rows but for rounding (and cannot tell a distance of 0); a few more rows than
    // needed are taken by it, and ordered by their true distances.
    constexpr std::int64_t spare = 16;
    const auto order = at::addmm(train_square.unsqueeze(0), query, train.t(), 1.0, -2.0);
    const auto candidates = std::get<1>(order.topk(std::min(k + spare, train.size(0)), 1, false));
    const auto rows = std::get<0>(candidates.sort(1, false));
    const auto apart =
        train.index_select(0, rows.flatten()).view({rows.size(0), rows.size(1), -1}) - query.unsqueeze(1);
    const auto [distance, place] = at::linalg_vector_norm(apart, 2, at::IntArrayRef{2}).sort(true, 1, false);
    return {distance.narrow(1, 0, k), rows.gather(1, place).narrow(1, 0, k)};
}

// Σ w·y / Σ w of each query's neighbours, w = 1/distance, or 1 on the neighbours at distance 0 if there are
// any.
at::Tensor weighted_mean(const at::Tensor& targets, const at::Tensor& distance, const at::Tensor& rows)
{
    const auto zero = distance == 0;
    const auto weight = at::where(zero.any(1, true), zero.to(at::kDouble), distance.reciprocal());
    const auto values =
        targets.index_select(0, rows.flatten()).view({rows.size(0), rows.size(1), targets.size(1)});
    return (values * weight.unsqueeze(2)).sum(1) / weight.sum(1, true);
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

KnnResult knn_regression(const comm::World& world, const at::Tensor& train, const at::Tensor& targets,
                         const at::Tensor& query, const KnnConfig& config)
{
    if (train.size(0) == 0) {
        throw DataError("k-nearest-neighbour regression", "the training set is empty");
    }
    const auto scale = ColumnScale::of(train);
    const auto prepare = [&](const at::Tensor& x) {
        return config.standardise ? scale.standardise(x) : x.to(at::kDouble);
    };
    const auto x = prepare(train);
    const auto square = x.square().sum(1);
    const auto y = targets.to(at::kDouble).view({train.size(0), -1});
    const auto q = prepare(query);
    const auto k = std::min<std::int64_t>(config.neighbours, train.size(0));

    const auto blocks = (q.size(0) + queries_at_once - 1) / queries_at_once;
    std::vector<at::Tensor> predicted, neighbours;
    for (auto block = blocks * world.rank() / world.size();
         block < blocks * (world.rank() + 1) / world.size(); ++block) {
        alive("neighbours of a block of galaxies");
        const auto first = block * queries_at_once;
        const auto some = q.narrow(0, first, std::min(queries_at_once, q.size(0) - first));
        const auto [distance, rows] = k_nearest(x, square, some, k);
        predicted.push_back(weighted_mean(y, distance, rows));
        neighbours.push_back(rows);
    }
    return {gather_blocks<double>(world, predicted, y.size(1)),
            gather_blocks<std::int64_t>(world, neighbours, k)};
}

}  // namespace astroclip::catalogue
