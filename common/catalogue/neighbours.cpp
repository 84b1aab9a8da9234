#include "catalogue/neighbours.hpp"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>
#include <fmt/format.h>

#include <algorithm>
#include <functional>
#include <future>
#include <limits>
#include <utility>

#include "core/error.hpp"
#include "core/heartbeat.hpp"

namespace astroclip::catalogue {

CatalogueShard CatalogueShard::of(const at::Tensor& vectors, std::int64_t first_row, const at::Tensor& usable)
{
    return {first_row, vectors.size(0),
            [=](std::int64_t first, std::int64_t count) -> CatalogueRows {
                const auto some = usable.defined() ? usable.narrow(0, first - first_row, count) : usable;
                return {vectors.narrow(0, first - first_row, count), some};
            },
            true};
}

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

// One product: scores [q, r] on the CPU of queries from first_query on with catalogue rows from first_row on.
// What is not usable has its score all the same; `usable` [r], or undefined, tells.
struct Product {
    std::int64_t first_query, first_row;
    at::Tensor scores, usable;

    const float* of(std::int64_t query) const
    {
        return scores.const_data_ptr<float>() + query * scores.stride(0);
    }
    bool is_usable(std::int64_t row) const { return !usable.defined() || usable.const_data_ptr<bool>()[row]; }
};
using Visit = std::function<void(const Product&)>;
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

// The shard in pieces that end at multiples of `size` rows, the next one being read while one is worked on.
template <typename Work>
void for_each_piece(const CatalogueShard& shard, std::int64_t size, Work work)
{
    if (shard.in_memory && shard.rows > 0) {
        return work(shard.first_row, shard.read(shard.first_row, shard.rows));
    }
    const auto last_row = shard.first_row + shard.rows;
    const auto read = [&](std::int64_t first) {
        return std::async(std::launch::async,
                          [&shard, first, last = std::min((first / size + 1) * size, last_row)] {
                              return shard.read(first, last - first);
                          });
    };
    auto row = shard.first_row;
    auto next = row < last_row ? read(row) : std::future<CatalogueRows>();
    while (row < last_row) {
        const auto piece = next.get();
        const auto first = std::exchange(row, std::min((row / size + 1) * size, last_row));
        if (row < last_row) {
            next = read(row);
        }
        work(first, piece);
    }
}

// Scores [1, n] of one query [1, D] with n rows of the catalogue from `first` on, by one thread a block. A
// product of matrices would copy each block first, which for one query costs more than the product.
at::Tensor scores_of_one(const at::Tensor& query, const at::Tensor& rows, std::int64_t first,
                         std::int64_t block_rows)
{
    const auto last = first + rows.size(0);
    const auto scores = at::empty({1, rows.size(0)}, at::kFloat);
    at::parallel_for(first / block_rows, (last + block_rows - 1) / block_rows, 1,
                     [&](std::int64_t begin, std::int64_t end) {
                         const at::NoGradGuard no_grad;
                         for (auto block = begin; block < end; ++block) {
                             const auto from = std::max(first, block * block_rows);
                             const auto count = std::min(last, (block + 1) * block_rows) - from;
                             const auto place = from % block_rows;
                             const auto all =
                                 in_place(rows, from - first, count, place, block_rows).mv(query[0]);
                             scores[0].narrow(0, from - first, count).copy_(all.narrow(0, place, count));
                         }
                     });
    return scores;
}

// Visits all products of a shard: blocks of catalogue rows that begin at multiples of blocks.rows, times
// blocks of queries.
void for_each_product(const CatalogueShard& shard, const at::Tensor& queries, const SearchBlocks& blocks,
                      const Wanted& wanted, const Visit& visit)
{
    const auto query_rows = std::min(blocks.queries, queries.size(0));  // alike on all ranks
    for_each_piece(shard, blocks.rows * blocks.ahead, [&](std::int64_t first, const CatalogueRows& piece) {
        const auto last = first + piece.vectors.size(0);
        if (queries.size(0) == 1 && queries.is_cpu()) {
            alive("comparing with the catalogue");
            if (wanted(0, 1, first, last - first)) {
                visit({0, first, scores_of_one(queries, piece.vectors, first, blocks.rows), piece.usable});
            }
            return;
        }
        for (auto row = first; row < last; row = (row / blocks.rows + 1) * blocks.rows) {
            const auto place = row % blocks.rows;
            const auto count = std::min(blocks.rows - place, last - row);
            at::Tensor block;
            alive("comparing with a block of the catalogue");
            for (std::int64_t query = 0; query < queries.size(0); query += query_rows) {
                const auto some = std::min(query_rows, queries.size(0) - query);
                if (!wanted(query, some, row, count)) {
                    continue;
                }
                if (!block.defined()) {
                    block =
                        in_place(piece.vectors, row - first, count, place, blocks.rows).to(queries.device());
                }
                const auto asked = in_place(queries, query, some, 0, query_rows);
                const auto scores = asked.mm(block.t()).narrow(0, 0, some).narrow(1, place, count);
                visit({query, row, scores.to(at::kCPU),
                       piece.usable.defined() ? piece.usable.narrow(0, row - first, count) : at::Tensor()});
            }
        }
    });
}

// The k best rows of each query so far.
class BestRows {
public:
    BestRows(std::int64_t queries, std::int64_t k)
        : k_(static_cast<std::size_t>(k)), best_(queries), bound_(queries, no_score)
    {
    }

    // Rows must come in ascending order: of equal scores the first ones stay.
    void add(const Product& product)
    {
        at::parallel_for(0, product.scores.size(0), 8, [&](std::int64_t begin, std::int64_t end) {
            for (auto query = begin; query < end; ++query) {
                add_row(product, query);
            }
        });
    }
    void add(std::int64_t query, const Candidate& candidate) { best_[query].push_back(candidate); }

    Neighbours result()
    {
        const auto queries = static_cast<std::int64_t>(best_.size());
        const auto k = static_cast<std::int64_t>(k_);
        Neighbours all{at::full({queries, k}, -1, at::kLong), at::full({queries, k}, no_score, at::kFloat)};
        for (std::int64_t query = 0; query < queries; ++query) {
            keep_best(query);
            std::sort(best_[query].begin(), best_[query].end(), better);
            for (std::size_t i = 0; i < best_[query].size(); ++i) {
                const auto at = query * k + static_cast<std::int64_t>(i);
                all.row.data_ptr<std::int64_t>()[at] = best_[query][i].row;
                all.score.data_ptr<float>()[at] = best_[query][i].score;
            }
        }
        return all;
    }

private:
    // Nearly all scores lie below the k-th best so far: they are passed over a stretch at a time.
    void add_row(const Product& product, std::int64_t query)
    {
        constexpr std::int64_t stretch = 32;
        const auto* score = product.of(query);
        const auto rows = product.scores.size(1);
        const auto number = product.first_query + query;
        const auto bound = bound_[number];
        std::int64_t row = 0;
        const auto take = [&](std::int64_t end) {
            for (; row < end; ++row) {
                if (score[row] > bound && product.is_usable(row)) {
                    best_[number].push_back({score[row], product.first_row + row});
                }
            }
        };
        for (; row + stretch <= rows;) {
            int hits = 0;
            for (std::int64_t i = 0; i < stretch; ++i) {
                hits |= score[row + i] > bound;
            }
            if (hits) {
                take(row + stretch);
            } else {
                row += stretch;
            }
        }
        take(rows);
        keep_best(number);
    }

    void keep_best(std::int64_t query)
    {
        auto& candidates = best_[query];
        if (candidates.size() > k_) {
            const auto kth = candidates.begin() + static_cast<std::ptrdiff_t>(k_) - 1;
            std::nth_element(candidates.begin(), kth, candidates.end(), better);
            candidates.resize(k_);
            bound_[query] = candidates.back().score;
        }
    }

    std::size_t k_;
    std::vector<std::vector<Candidate>> best_;
    std::vector<float> bound_;  // the k-th best score; -inf while there are fewer
};

}  // namespace

Neighbours nearest(comm::Communicator& ranks, const CatalogueShard& shard, const at::Tensor& queries,
                   std::int64_t k, const SearchBlocks& blocks)
{
    const at::NoGradGuard no_grad;
    const auto count = queries.size(0);
    BestRows local(count, k);
    if (count == 0) {
        return local.result();
    }
    for_each_product(
        shard, queries, blocks, [](auto...) { return true; },
        [&](const Product& product) { local.add(product); });
    return merged(ranks, local.result());
}

Neighbours best_of(const std::vector<Neighbours>& lists, std::int64_t queries, std::int64_t k)
{
    BestRows best(queries, k);
    for (const auto& list : lists) {
        for (std::int64_t i = 0; i < list.row.numel(); ++i) {
            if (const auto row = list.row.const_data_ptr<std::int64_t>()[i]; row >= 0) {
                best.add(i / k % queries, {list.score.const_data_ptr<float>()[i], row});
            }
        }
    }
    return best.result();
}

Neighbours merged(comm::Communicator& ranks, const Neighbours& mine)
{
    if (ranks.size() == 1 || mine.row.numel() == 0) {
        return mine;
    }
    // One rank's lists after the other's.
    return best_of({{ranks.all_gather(mine.row.to(ranks.device())).to(at::kCPU),
                     ranks.all_gather(mine.score.to(ranks.device())).to(at::kCPU)}},
                   mine.row.size(0), mine.row.size(1));
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
    for_each_product(
        shard, queries, blocks,
        [&](std::int64_t query, std::int64_t some, std::int64_t row, std::int64_t rows) {
            const auto* first = partner_row.data() + query;
            return std::any_of(first, first + some,
                               [&](std::int64_t p) { return p >= row && p < row + rows; });
        },
        [&](const Product& product) {
            for (std::int64_t i = 0; i < product.scores.size(0); ++i) {
                const auto query = product.first_query + i;
                const auto place = partner_row[query] - product.first_row;
                if (place >= 0 && place < product.scores.size(1) && product.is_usable(place)) {
                    score[query] = product.of(i)[place];
                    score[count + query] = 1.0;
                }
            }
        });
    found = found.to(ranks.device());
    ranks.all_reduce_sum(found);
    if (!found[1].eq(1.0).all().item<bool>()) {
        throw InternalError(fmt::format("{} of {} queries have a partner row that is not in the catalogue",
                                        found[1].ne(1.0).sum().item<std::int64_t>(), count));
    }

    auto before = at::zeros({count}, at::kLong);
    auto* places_before = before.data_ptr<std::int64_t>();
    found = found.to(at::kCPU);
    score = found.data_ptr<double>();
    for_each_product(
        shard, queries, blocks, [](auto...) { return true; },
        [&](const Product& product) {
            for (std::int64_t i = 0; i < product.scores.size(0); ++i) {
                const auto query = product.first_query + i;
                const Candidate partner{static_cast<float>(score[query]), partner_row[query]};
                for (std::int64_t row = 0; row < product.scores.size(1); ++row) {
                    places_before[query] += better({product.of(i)[row], product.first_row + row}, partner) &&
                                            product.is_usable(row);
                }
            }
        });
    before = before.to(ranks.device());
    ranks.all_reduce_sum(before);
    const auto places = (before + 1).to(at::kCPU);
    return {places.data_ptr<std::int64_t>(), places.data_ptr<std::int64_t>() + count};
}

}  // namespace astroclip::catalogue
