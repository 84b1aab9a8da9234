#include "catalogue/neighbours.hpp"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <vector>

#include "core/error.hpp"
#include "support/deterministic_fill.hpp"
#include "support/ranks.hpp"
#include "support/reference.hpp"

namespace astroclip::catalogue {
namespace {

constexpr SearchBlocks small_blocks{.rows = 64, .queries = 3, .ahead = 2};
constexpr SearchBlocks wide_blocks{.rows = 64, .queries = 100, .ahead = 2};  // from 64 on queries are packed

const SearchBlocks& blocks_of(std::int64_t queries) { return queries < 64 ? small_blocks : wide_blocks; }

// Vectors of small integers: their products are exact and often equal, so that order among equals shows.
at::Tensor small_integers(std::uint64_t n, std::int64_t rows)
{
    return (2.0 * test::fill_tensor(n, {rows, 6})).round();
}

// Uneven shares of the rows; on four ranks the second is empty.
CatalogueShard shard_of(const test::Ranks& ranks, const at::Tensor& vectors, const at::Tensor& usable = {})
{
    std::vector<std::int64_t> bounds{0};
    for (int rank = 0; rank < ranks.size(); ++rank) {
        const auto end = rank == ranks.size() - 1
                             ? vectors.size(0)
                             : vectors.size(0) * (rank * rank + 1) / (ranks.size() * ranks.size());
        bounds.push_back(rank == 1 && ranks.size() > 2 ? bounds.back() : end);
    }
    const auto first = bounds[static_cast<std::size_t>(ranks.rank())];
    const auto rows = bounds[static_cast<std::size_t>(ranks.rank()) + 1] - first;
    return CatalogueShard::of(vectors.narrow(0, first, rows), first,
                              usable.defined() ? usable.narrow(0, first, rows) : usable);
}

// All rows of each query by falling score, equal ones by row.
at::Tensor order_of(const at::Tensor& vectors, const at::Tensor& queries)
{
    return std::get<1>(queries.mm(vectors.t()).sort(true, 1, true));
}

TEST(Nearest, AreThoseOfAFullSortWithTiesInOrderOfRows)
{
    const auto ranks = test::all_ranks();
    const auto vectors = small_integers(1, 500);
    // 70 are no whole panel, 201 leave a block of one
    for (const std::int64_t asked : {1, 10, 64, 70, 201}) {
        const auto queries = small_integers(2, asked);
        const auto order = order_of(vectors, queries);
        for (const std::int64_t k : {1, 10, 200}) {
            const auto found = nearest(ranks, shard_of(ranks, vectors), queries, k, blocks_of(asked));
            EXPECT_TRUE(found.row.equal(order.narrow(1, 0, k))) << asked << " " << k;
            EXPECT_TRUE(found.score.equal(queries.mm(vectors.t()).gather(1, found.row))) << asked << " " << k;
        }
    }
}

TEST(Nearest, AreTheSameBitsOnAnyNumberOfRanks)
{
    const auto ranks = test::all_ranks();
    const auto alone = test::this_rank_alone();
    const auto unit = [](const at::Tensor& x) { return x / x.norm(2, {1}, true); };
    const auto vectors = unit(test::fill_tensor(1, {1000, 40}));
    for (const std::int64_t asked : {1, 20, 130}) {
        const auto queries = unit(test::fill_tensor(2, {asked, 40}));
        const auto whole = nearest(alone, CatalogueShard::of(vectors), queries, 8, blocks_of(asked));
        const auto shared = nearest(ranks, shard_of(ranks, vectors), queries, 8, blocks_of(asked));
        EXPECT_TRUE(shared.row.equal(whole.row)) << asked;
        EXPECT_TRUE(shared.score.equal(whole.score)) << asked;
    }
}

TEST(Nearest, EqualThePublishedSearchInAllFourModes)
{
    const auto ranks = test::all_ranks();
    const auto reference = test::read_reference(TEST_DATA "/catalogue/downstream.safetensors");
    const auto asked = reference.at("search/in/query").to(at::kLong);
    for (const std::string query : {"image", "spectrum"}) {
        for (const std::string target : {"image", "spectrum"}) {
            const auto unit = [&](const std::string& kind) {
                const auto x = reference.at("search/in/" + kind + "_embeddings");
                return x / x.norm(2, {1}, true);
            };
            const auto found =
                nearest(ranks, shard_of(ranks, unit(target)), unit(query).index_select(0, asked), 8);
            const auto name = "search/out/" + query + "_" + target;
            EXPECT_TRUE(found.row.equal(reference.at(name + ".index").to(at::kLong))) << name;
            EXPECT_LT(test::relative_difference(found.score, reference.at(name + ".cosine")), 1e-6) << name;
        }
    }
}

TEST(Nearest, LeaveOutUnusableRowsAndSayWhereNoneAreLeft)
{
    const auto ranks = test::all_ranks();
    const auto vectors = small_integers(1, 100);
    auto usable = at::zeros({100}, at::kBool);
    for (const auto row : {3, 40, 99}) {
        usable[row] = true;
    }
    for (const std::int64_t asked : {4, 80}) {
        const auto found =
            nearest(ranks, shard_of(ranks, vectors, usable), small_integers(2, asked), 5, blocks_of(asked));
        EXPECT_TRUE(std::get<0>(found.row.narrow(1, 0, 3).sort(1))
                        .equal(at::tensor({3, 40, 99}, at::kLong).expand({asked, 3})));
        EXPECT_TRUE(found.row.narrow(1, 3, 2).eq(-1).all().item<bool>());
        EXPECT_TRUE(found.score.narrow(1, 3, 2).isinf().all().item<bool>());
    }
}

// Columns of a wider matrix, as a catalogue and as queries; what is not a number stays in its row and query.
TEST(Nearest, TakeVectorsAsTheyLieAndKeepNotNumbersApart)
{
    const auto ranks = test::all_ranks();
    const auto wide = test::fill_tensor(1, {300, 50});
    const auto asked = test::fill_tensor(2, {90, 50});
    wide[17][45] = NAN;  // not of the columns that count
    wide[23][3] = NAN;
    asked[5][3] = NAN;
    const auto vectors = wide.narrow(1, 0, 37), queries = asked.narrow(1, 0, 37);
    const auto found = nearest(ranks, shard_of(ranks, vectors), queries, 4, wide_blocks);
    auto known = vectors.contiguous().clone();
    known[23].zero_();
    const auto scores = queries.mm(known.t()).index_fill_(1, at::tensor({23}, at::kLong), -INFINITY);
    const auto [best, rows] = scores.sort(true, 1, true);
    for (std::int64_t query = 0; query < 90; ++query) {
        if (query == 5) {
            EXPECT_TRUE(found.row[query].eq(-1).all().item<bool>());
        } else {
            EXPECT_TRUE(found.row[query].equal(rows[query].narrow(0, 0, 4))) << query;
            EXPECT_TRUE(at::allclose(found.score[query], best[query].narrow(0, 0, 4), 1e-5, 1e-5)) << query;
        }
    }
}

TEST(Nearest, RefuseQueriesOfAnotherWidth)
{
    const auto alone = test::this_rank_alone();
    for (const std::int64_t asked : {2, 64}) {
        EXPECT_THROW(nearest(alone, CatalogueShard::of(at::zeros({400, 8})), at::zeros({asked, 7}), 1),
                     InternalError);
    }
}

TEST(PartnerPlaces, AreThePositionsInTheFullOrder)
{
    const auto ranks = test::all_ranks();
    const auto vectors = small_integers(1, 300);
    for (const std::int64_t asked : {50, 130}) {
        const auto queries = small_integers(2, asked);
        std::vector<std::int64_t> partner, expected;
        const auto order = order_of(vectors, queries);
        for (std::int64_t i = 0; i < asked; ++i) {
            partner.push_back((37 * i) % 300);
            expected.push_back(order[i].eq(partner.back()).nonzero().item<std::int64_t>() + 1);
        }
        EXPECT_EQ(partner_places(ranks, shard_of(ranks, vectors), queries, partner, blocks_of(asked)),
                  expected);
    }
}

TEST(PartnerPlaces, RefuseAPartnerThatIsNotInTheCatalogue)
{
    const auto ranks = test::all_ranks();
    EXPECT_THROW(partner_places(ranks, shard_of(ranks, small_integers(1, 30)), small_integers(2, 1), {30}),
                 InternalError);
}

}  // namespace
}  // namespace astroclip::catalogue
