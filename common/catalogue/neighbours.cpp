#include "catalogue/neighbours.hpp"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>
#include <functional>
#include <limits>

#include "core/error.hpp"
#include "core/heartbeat.hpp"

namespace astroclip::catalogue {

namespace {

constexpr float no_score = -std::numeric_limits<float>::infinity();

struct Candidate {
    float score;
    std::int64_t row;
};
bool better(const Candidate& a, const Candidate& b)
{
    return a.score > b.score || (a.score == b.score && a.row < b.row);
}

// One product: scores [q, r] of queries from first_query on with catalogue rows from first_row on; unusable
// rows: -inf.
using Visit = std::function<void(std::int64_t first_query, std::int64_t first_row, const at::Tensor& scores)>;
using Wanted = std::function<bool(std::int64_t first_query, std::int64_t queries, std::int64_t first_row,
                                  std::int64_t rows)>;

// `count` rows of `all` from `first` on as rows place, place + 1, … of a [size, D] matrix with zeros around.
// Products of one shape, with a row always in the same place, round alike on every number of ranks.
at::Tensor in_place(const at::Tensor& all, std::int64_t first, std::int64_t count, std::int64_t place,
                    std::int64_t size)
{
    const auto rows = all.narrow(0, first, count);
    if (count == size) {
        return rows;
    }
    auto padded = at::zeros({size, all.size(1)}, all.options());
    padded.narrow(0, place, count).copy_(rows);
    return padded;
}

// Visits all products of a shard: blocks of catalogue rows that begin at multiples of blocks.rows, times
// blocks of queries.
void for_each_product(const CatalogueShard& shard, const at::Tensor& queries, const SearchBlocks& blocks,
                      const Wanted& wanted, const Visit& visit)
{
    const auto last_row = shard.first_row + shard.vectors.size(0);
    for (auto row = shard.first_row; row < last_row; row = (row / blocks.rows + 1) * blocks.rows) {
        const auto place = row % blocks.rows;
        const auto count = std::min(blocks.rows - place, last_row - row);
        const auto from = row - shard.first_row;
        at::Tensor block;
        alive("comparing with a block of the catalogue");
        for (std::int64_t query = 0; query < queries.size(0); query += blocks.queries) {
            const auto some = std::min(blocks.queries, queries.size(0) - query);
            if (!wanted(query, some, row, count)) {
                continue;
            }
            if (!block.defined()) {
                block = in_place(shard.vectors, from, count, place, blocks.rows);
            }
            const auto asked = in_place(queries, query, some, 0, blocks.queries);
            auto scores = asked.mm(block.t()).narrow(0, 0, some).narrow(1, place, count);
            if (shard.usable.defined()) {
                scores = scores.masked_fill(shard.usable.narrow(0, from, count).logical_not(), no_score);
            }
            visit(query, row, scores);
        }
    }
}

// The k best rows of each query so far.
class BestRows {
public:
    BestRows(std::int64_t queries, std::int64_t k) : k_(static_cast<std::size_t>(k)), best_(queries) {}

    // Takes what can be among the k best from a product.
    void add(std::int64_t first_query, std::int64_t first_row, const at::Tensor& scores)
    {
        const auto bound = lowest_useful(first_query, scores);
        const auto hits = (scores >= bound.unsqueeze(1)).nonzero();
        const auto values = scores.index({hits.select(1, 0), hits.select(1, 1)}).to(at::kCPU);
        const auto places = hits.to(at::kCPU);
        const auto place = places.accessor<std::int64_t, 2>();
        for (std::int64_t hit = 0; hit < places.size(0); ++hit) {
            best_[first_query + place[hit][0]].push_back(
                {values.data_ptr<float>()[hit], first_row + place[hit][1]});
        }
        for (std::int64_t query = 0; query < scores.size(0); ++query) {
            keep_best(best_[first_query + query]);
        }
    }
    void add(std::int64_t query, const Candidate& candidate) { best_[query].push_back(candidate); }

    Neighbours result()
    {
        const auto queries = static_cast<std::int64_t>(best_.size());
        const auto k = static_cast<std::int64_t>(k_);
        Neighbours all{at::full({queries, k}, -1, at::kLong), at::full({queries, k}, no_score, at::kFloat)};
        for (std::int64_t query = 0; query < queries; ++query) {
            keep_best(best_[query]);
            for (std::size_t i = 0; i < best_[query].size(); ++i) {
                const auto at = query * k + static_cast<std::int64_t>(i);
                all.row.data_ptr<std::int64_t>()[at] = best_[query][i].row;
                all.score.data_ptr<float>()[at] = best_[query][i].score;
            }
        }
        return all;
    }

private:
    // A score below this cannot be among a query's k best: its k-th best so far or, while there is none, the
    // k-th in the product itself. Scores equal to it are let through, for the row decides.
    at::Tensor lowest_useful(std::int64_t first_query, const at::Tensor& scores) const
    {
        auto bound = at::empty({scores.size(0)}, at::kFloat);
        bool complete = true;
        for (std::int64_t query = 0; query < scores.size(0); ++query) {
            const auto& best = best_[first_query + query];
            const bool full = best.size() == k_;
            bound.data_ptr<float>()[query] = full ? best.back().score : std::numeric_limits<float>::lowest();
            complete = complete && full;
        }
        bound = bound.to(scores.device());
        const auto k = static_cast<std::int64_t>(k_);
        if (!complete && scores.size(1) > k) {
            bound = at::maximum(bound, std::get<0>(scores.topk(k, 1)).select(1, k - 1));
        }
        return bound;
    }

    void keep_best(std::vector<Candidate>& candidates) const
    {
        const auto kept = std::min(k_, candidates.size());
        std::partial_sort(candidates.begin(), candidates.begin() + static_cast<std::ptrdiff_t>(kept),
                          candidates.end(), better);
        candidates.resize(kept);
    }

    std::size_t k_;
    std::vector<std::vector<Candidate>> best_;
};

}  // namespace

Neighbours nearest(comm::Communicator& ranks, const CatalogueShard& shard, const at::Tensor& queries,
                   std::int64_t k, const SearchBlocks& blocks)
{
    const at::NoGradGuard no_grad;
    const auto count = queries.size(0);
    BestRows local(count, k);
    for_each_product(
        shard, queries, blocks, [](auto...) { return true; },
        [&](std::int64_t query, std::int64_t row, const at::Tensor& scores) {
            local.add(query, row, scores);
        });
    const auto mine = local.result();
    if (ranks.size() == 1) {
        return mine;
    }
    const auto rows = ranks.all_gather(mine.row.to(ranks.device())).to(at::kCPU);
    const auto scores = ranks.all_gather(mine.score.to(ranks.device())).to(at::kCPU);
    BestRows merged(count, k);
    for (std::int64_t i = 0; i < rows.numel(); ++i) {
        if (const auto row = rows.data_ptr<std::int64_t>()[i]; row >= 0) {
            merged.add(i / k % count, {scores.data_ptr<float>()[i], row});
        }
    }
    return merged.result();
}

std::vector<std::int64_t> partner_places(comm::Communicator& ranks, const CatalogueShard& shard,
                                         const at::Tensor& queries,
                                         const std::vector<std::int64_t>& partner_row,
                                         const SearchBlocks& blocks)
{
    const at::NoGradGuard no_grad;
    const auto count = queries.size(0);
    // The partners' scores come from the very products that the other rows are counted in: rounding cannot
    // part them.
    auto found = at::zeros({2, count}, at::kDouble);  // score, number of shards that hold it
    auto* score = found.data_ptr<double>();
    const auto in_block = [&](std::int64_t query, std::int64_t row, std::int64_t rows) {
        return partner_row[query] >= row && partner_row[query] < row + rows;
    };
    for_each_product(
        shard, queries, blocks,
        [&](std::int64_t query, std::int64_t some, std::int64_t row, std::int64_t rows) {
            const auto* first = partner_row.data() + query;
            return std::any_of(first, first + some,
                               [&](std::int64_t p) { return p >= row && p < row + rows; });
        },
        [&](std::int64_t query, std::int64_t row, const at::Tensor& scores) {
            const auto values = scores.to(at::kCPU);
            const auto value = values.accessor<float, 2>();
            for (std::int64_t i = 0; i < scores.size(0); ++i) {
                if (in_block(query + i, row, scores.size(1)) &&
                    value[i][partner_row[query + i] - row] > no_score) {
                    score[query + i] = value[i][partner_row[query + i] - row];
                    score[count + query + i] = 1.0;
                }
            }
        });
    found = found.to(ranks.device());
    ranks.all_reduce_sum(found);
    if (!found[1].eq(1.0).all().item<bool>()) {
        throw InternalError(fmt::format("{} of {} queries have a partner row that is not in the catalogue",
                                        found[1].ne(1.0).sum().item<std::int64_t>(), count));
    }

    const auto partner_score = found[0].to(at::kFloat).to(queries.device()).unsqueeze(1);
    const auto partner =
        at::tensor(at::ArrayRef<std::int64_t>(partner_row), at::kLong).to(queries.device()).unsqueeze(1);
    auto before = at::zeros({count}, partner.options());
    for_each_product(
        shard, queries, blocks, [](auto...) { return true; },
        [&](std::int64_t query, std::int64_t row, const at::Tensor& scores) {
            const auto own = partner_score.narrow(0, query, scores.size(0));
            const auto rows = at::arange(row, row + scores.size(1), partner.options());
            const auto earlier = (scores == own).logical_and(rows < partner.narrow(0, query, scores.size(0)));
            before.narrow(0, query, scores.size(0)).add_((scores > own).logical_or(earlier).sum(1));
        });
    before = before.to(ranks.device());
    ranks.all_reduce_sum(before);
    const auto places = (before + 1).to(at::kCPU);
    return {places.data_ptr<std::int64_t>(), places.data_ptr<std::int64_t>() + count};
}

}  // namespace astroclip::catalogue
