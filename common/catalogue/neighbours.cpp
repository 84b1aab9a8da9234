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
#include "core/rounding.hpp"
#include "nn/avx512.hpp"
#include "nn/float_product.hpp"

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

// One product: scores [r, q] on the CPU of catalogue rows from first_row on with queries from first_query on.
// What is not usable has its score all the same; `usable` [r], or undefined, tells.
class Product {
public:
    Product(std::int64_t query, std::int64_t row, at::Tensor scores, at::Tensor usable)
        : first_query(query),
          first_row(row),
          rows(scores.size(0)),
          queries(scores.size(1)),
          step(scores.stride(0)),
          scores_(std::move(scores)),
          usable_(std::move(usable)),
          values_(scores_.const_data_ptr<float>()),
          is_usable_(usable_.defined() ? usable_.const_data_ptr<bool>() : nullptr)
    {
    }

    const float* of(std::int64_t row) const { return values_ + row * step; }
    bool is_usable(std::int64_t row) const { return is_usable_ == nullptr || is_usable_[row]; }

    std::int64_t first_query, first_row, rows, queries, step;  // step: from a row's scores to the next one's

private:
    at::Tensor scores_, usable_;
    const float* values_;
    const bool* is_usable_;
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

// Scores [n, 1] of one query [1, D] with n rows of the catalogue from `first` on, by one thread a block. A
// product of matrices would copy each block first, which for one query costs more than the product.
at::Tensor scores_of_one(const at::Tensor& query, const at::Tensor& rows, std::int64_t first,
                         std::int64_t block_rows)
{
    const auto last = first + rows.size(0);
    auto scores = at::empty({rows.size(0), 1}, at::kFloat);
    at::parallel_for(
        first / block_rows, (last + block_rows - 1) / block_rows, 1,
        [&](std::int64_t begin, std::int64_t end) {
            const at::NoGradGuard no_grad;
            for (auto block = begin; block < end; ++block) {
                const auto from = std::max(first, block * block_rows);
                const auto count = std::min(last, (block + 1) * block_rows) - from;
                const auto place = from % block_rows;
                const auto all = in_place(rows, from - first, count, place, block_rows).mv(query[0]);
                scores.narrow(0, from - first, count).copy_(all.narrow(0, place, count).unsqueeze(1));
            }
        });
    return scores;
}

// Scores of blocks of the catalogue with blocks of queries. From 64 queries on, on CPUs with AVX-512, each
// score is one sum in one order, wherever its row lies; other products round alike if their shapes are.
class Multiplier {
public:
    // queries [Q, D] float32, in blocks as many as blocks.queries
    Multiplier(const at::Tensor& queries, const SearchBlocks& blocks)
        : queries_(queries),
          blocks_{blocks.rows, std::min(blocks.queries, queries.size(0)), blocks.ahead}  // alike on all ranks
    {
#if defined(__x86_64__)
        if (queries.is_cpu() && blocks_.queries >= least_queries && nn::has_avx512()) {
            pack();
        }
#endif
    }

    const at::Tensor& queries() const { return queries_; }
    const SearchBlocks& blocks() const { return blocks_; }

    // Rows [n, D] of the catalogue, the first at `place` of its block.
    void set_rows(const at::Tensor& rows, std::int64_t place)
    {
        if (rows.size(1) != queries_.size(1)) {
            throw InternalError(fmt::format("queries of {} numbers in a catalogue of vectors of {}",
                                            queries_.size(1), rows.size(1)));
        }
        rows_ = rows;
        place_ = place;
        block_ = at::Tensor();
    }

    // [n, count] of these rows, on the CPU, until the next call.
    at::Tensor with(std::int64_t query, std::int64_t count)
    {
#if defined(__x86_64__)
        if (!packed_.empty()) {
            return packed_scores(query, count);
        }
#endif
        if (!block_.defined()) {
            block_ = in_place(rows_, 0, rows_.size(0), place_, blocks_.rows).to(queries_.device());
        }
        const auto asked = in_place(queries_, query, count, 0, blocks_.queries);
        const auto scores = block_.mm(asked.t());
        return scores.narrow(0, place_, rows_.size(0)).narrow(1, 0, count).to(at::kCPU);
    }

private:
    at::Tensor queries_, rows_, block_;
    SearchBlocks blocks_;
    std::int64_t place_ = 0;

#if defined(__x86_64__)
    static constexpr std::int64_t least_queries =
        2 * nn::FloatProduct::panel;  // too little of fewer is filled

    void pack()
    {
        const auto all = queries_.contiguous();
        const auto width = all.size(1);
        for (std::int64_t query = 0; query < all.size(0); query += blocks_.queries) {
            packed_.emplace_back(width, filled(std::min(blocks_.queries, all.size(0) - query)));
        }
        const auto columns = filled(blocks_.queries);
        at::parallel_for(0, static_cast<std::int64_t>(packed_.size()) * columns, nn::FloatProduct::panel,
                         [&](std::int64_t begin, std::int64_t end) {
                             for (auto i = begin; i < end; ++i) {
                                 const auto block = i / columns, column = i % columns;
                                 const auto first = block * blocks_.queries;
                                 const auto count = std::min(blocks_.queries, all.size(0) - first);
                                 if (column < filled(count)) {
                                     const auto* row = all.const_data_ptr<float>() + (first + column) * width;
                                     packed_[static_cast<std::size_t>(block)].set_column(
                                         column, {column < count ? row : nullptr}, width);
                                 }
                             }
                         });
        scores_ = at::empty({blocks_.rows, columns}, at::kFloat);
    }

    static std::int64_t filled(std::int64_t queries) { return rounded_up(queries, nn::FloatProduct::panel); }

    at::Tensor packed_scores(std::int64_t query, std::int64_t count)
    {
        if (!block_.defined()) {
            block_ = rows_.to(at::kCPU).contiguous();
        }
        const auto& rows = block_;
        const auto width = rows.size(1), stride = scores_.size(1);
        const auto* values = rows.const_data_ptr<float>();
        auto* scores = scores_.mutable_data_ptr<float>();
        const auto& block = packed_[static_cast<std::size_t>(query / blocks_.queries)];
        constexpr auto at_once = nn::FloatProduct::side;
        at::parallel_for(
            0, (rows.size(0) + at_once - 1) / at_once, 1, [&](std::int64_t begin, std::int64_t end) {
                const auto last = std::min(end * at_once, rows.size(0));
                for (auto row = begin * at_once; row < last; row += at_once) {
                    const auto some = std::min(at_once, last - row);
                    // The queries stay in the cache; of the catalogue, which comes from memory, the next rows
                    // are fetched meanwhile.
                    nn::fetch(values + (row + some) * width, std::min(at_once, last - row - some) * width);
                    nn::FloatProduct::multiply(values + row * width, width, 1, some, width, block,
                                               filled(count), scores + row * stride, stride, false);
                }
            });
        return scores_.narrow(0, 0, rows.size(0)).narrow(1, 0, count);
    }

    std::vector<nn::FloatProduct::Right> packed_;
    at::Tensor scores_;
#endif
};

// Visits all products of a shard: blocks of catalogue rows that begin at multiples of blocks.rows, times
// blocks of queries.
void for_each_product(const CatalogueShard& shard, Multiplier& multiplier, const Wanted& wanted,
                      const Visit& visit)
{
    const auto& queries = multiplier.queries();
    const auto& blocks = multiplier.blocks();
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
            alive("comparing with a block of the catalogue");
            multiplier.set_rows(piece.vectors.narrow(0, row - first, count), place);
            for (std::int64_t query = 0; query < queries.size(0); query += blocks.queries) {
                const auto some = std::min(blocks.queries, queries.size(0) - query);
                if (wanted(query, some, row, count)) {
                    visit(
                        {query, row, multiplier.with(query, some),
                         piece.usable.defined() ? piece.usable.narrow(0, row - first, count) : at::Tensor()});
                }
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
        const auto stretches = (product.queries + stretch - 1) / stretch;
        at::parallel_for(0, stretches, 1, [&](std::int64_t begin, std::int64_t end) {
            const auto first = begin * stretch, after = std::min(end * stretch, product.queries);
            product.queries == 1 && product.step == 1 ? add_of_one(product) : add_of(product, first, after);
            for (auto query = first; query < after; ++query) {
                keep_best(product.first_query + query);
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
    static constexpr std::int64_t stretch = 32;
    template <typename Bound>
    static bool any_above(const float* score, std::int64_t n, const Bound& bound)
    {
        int hits = 0;
        if (n == stretch) {  // by vectors
            for (std::int64_t i = 0; i < stretch; ++i) {
                hits |= score[i] > bound(i);
            }
        }
        for (std::int64_t i = 0; n < stretch && i < n; ++i) {
            hits |= score[i] > bound(i);
        }
        return hits != 0;
    }

    void offer(const Product& product, std::int64_t row, std::int64_t query)
    {
        const auto number = product.first_query + query;
        const auto score = product.of(row)[query];
        if (score > bound_[number] && product.is_usable(row)) {
            best_[number].push_back({score, product.first_row + row});
        }
    }

    // Of queries begin … end - 1, row by row.
    void add_of(const Product& product, std::int64_t begin, std::int64_t end)
    {
        for (std::int64_t row = 0; row < product.rows; ++row) {
            for (auto query = begin; query < end; query += stretch) {
                const auto count = std::min(stretch, end - query);
                const auto* bound = bound_.data() + product.first_query + query;
                if (any_above(product.of(row) + query, count, [&](std::int64_t i) { return bound[i]; })) {
                    for (auto one = query; one < query + count; ++one) {
                        offer(product, row, one);
                    }
                }
            }
        }
    }

    // Of one query, whose scores lie one after the other.
    void add_of_one(const Product& product)
    {
        const auto bound = bound_[product.first_query];
        for (std::int64_t row = 0; row < product.rows; row += stretch) {
            const auto count = std::min(stretch, product.rows - row);
            if (any_above(product.of(row), count, [&](std::int64_t) { return bound; })) {
                for (auto one = row; one < row + count; ++one) {
                    offer(product, one, 0);
                }
            }
        }
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
    Multiplier multiplier(queries, blocks);
    for_each_product(
        shard, multiplier, [](auto...) { return true; }, [&](const Product& product) { local.add(product); });
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
    Multiplier multiplier(queries, blocks);
    for_each_product(
        shard, multiplier,
        [&](std::int64_t query, std::int64_t some, std::int64_t row, std::int64_t rows) {
            const auto* first = partner_row.data() + query;
            return std::any_of(first, first + some,
                               [&](std::int64_t p) { return p >= row && p < row + rows; });
        },
        [&](const Product& product) {
            for (std::int64_t i = 0; i < product.queries; ++i) {
                const auto query = product.first_query + i;
                const auto place = partner_row[query] - product.first_row;
                if (place >= 0 && place < product.rows && product.is_usable(place)) {
                    score[query] = product.of(place)[i];
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
    std::vector<Candidate> partners;
    for (std::int64_t query = 0; query < count; ++query) {
        partners.push_back({static_cast<float>(score[query]), partner_row[query]});
    }
    for_each_product(
        shard, multiplier, [](auto...) { return true; },
        [&](const Product& product) {
            for (std::int64_t row = 0; row < product.rows; ++row) {
                if (!product.is_usable(row)) continue;
                for (std::int64_t i = 0; i < product.queries; ++i) {
                    const auto query = product.first_query + i;
                    places_before[query] +=
                        better({product.of(row)[i], product.first_row + row}, partners[query]);
                }
            }
        });
    before = before.to(ranks.device());
    ranks.all_reduce_sum(before);
    const auto places = (before + 1).to(at::kCPU);
    return {places.data_ptr<std::int64_t>(), places.data_ptr<std::int64_t>() + count};
}

}  // namespace astroclip::catalogue
