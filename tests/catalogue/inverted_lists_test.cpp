#include "catalogue/inverted_lists.hpp"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <string>

#include "core/error.hpp"

namespace astroclip::catalogue {
namespace {

// 2,000 unit vectors around 20 directions; rows of the catalogue are every third.
class InvertedLists : public testing::Test {
protected:
    void SetUp() override
    {
        if (!has_inverted_lists()) GTEST_SKIP() << "built without FAISS";
        at::manual_seed(3);
        const auto directions = at::randn({20, 32});
        vectors_ = directions.repeat({100, 1}) + 0.7 * at::randn({2000, 32});
        vectors_ = vectors_ / vectors_.norm(2, 1, true);
        write_inverted_lists(path_, vectors_, 3 * at::arange(2000, at::kLong), lists_for(2000), 42);
    }
    void TearDown() override { std::filesystem::remove(path_); }
    // Share of the ten nearest of 100 rows.
    double recall(std::int64_t probes) const
    {
        const auto queries = vectors_.narrow(0, 0, 100);
        const auto exact = std::get<1>(queries.mm(vectors_.t()).topk(10, 1)) * 3;
        const auto found = search_inverted_lists(path_, queries, 10, probes).row;
        return exact.unsqueeze(2).eq(found.unsqueeze(1)).any(2).to(at::kDouble).mean().item<double>();
    }

    std::string path_ =
        std::filesystem::temp_directory_path() / ("inverted-lists-" + std::to_string(::getpid()));
    at::Tensor vectors_;
};

TEST_F(InvertedLists, AllOfThemAreExactSearch)
{
    EXPECT_EQ(lists_for(2000), 51);  // 39 rows each
    EXPECT_EQ(recall(51), 1.0);
    EXPECT_EQ(recall(1000), 1.0);
}

TEST_F(InvertedLists, FewOfThemFindMostAndMoreFindMore)
{
    const auto one = recall(1), eight = recall(8);
    EXPECT_GT(one, 0.2);  // chance is a 51st
    EXPECT_GT(eight, one);
    EXPECT_GT(eight, 0.9);
}

TEST_F(InvertedLists, GiveNoMoreThanThereIs)
{
    const auto found = search_inverted_lists(path_, vectors_.narrow(0, 0, 2), 2500, 51);
    EXPECT_EQ(found.row.ge(0).sum().item<std::int64_t>(), 2 * 2000);
    EXPECT_TRUE(at::equal(found.row.lt(0), found.score.isneginf()));
}

TEST_F(InvertedLists, OfADamagedFileOrOfOtherVectorsAreRefused)
{
    EXPECT_THROW(search_inverted_lists(path_, at::ones({1, 31}), 5, 1), DataError);
    std::filesystem::resize_file(path_, 100);
    EXPECT_THROW(search_inverted_lists(path_, vectors_.narrow(0, 0, 1), 5, 1), DataError);
    std::ofstream(path_) << "no index";
    EXPECT_THROW(search_inverted_lists(path_, vectors_.narrow(0, 0, 1), 5, 1), DataError);
}

}  // namespace
}  // namespace astroclip::catalogue
