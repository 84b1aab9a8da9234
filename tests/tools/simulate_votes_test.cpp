#include <gtest/gtest.h>

#include <cmath>
#include <numeric>

#include "tools/simulate/parallel.hpp"
#include "tools/simulate/population.hpp"
#include "tools/simulate/votes.hpp"

namespace astroclip::simulate {
namespace {

const std::string data = TEST_DATA "/../../tools/simulate/data";
constexpr std::uint64_t seed = 42;

struct Seen {
    Galaxy galaxy;
    Imaging imaging;
};

class Votes : public testing::Test {
protected:
    static void SetUpTestSuite()
    {
        const Population population(data, seed);
        seen = new std::vector<Seen>(1000);
        parallel_for(std::ssize(*seen), 2, [&](std::int64_t i) {
            const auto galaxy = population.draw(i);
            (*seen)[static_cast<std::size_t>(i)] = {galaxy, observe(galaxy, seed)};
        });
    }
    static void TearDownTestSuite() { delete seen; }
    static std::vector<Seen>* seen;
};
std::vector<Seen>* Votes::seen = nullptr;

int sum(const std::vector<int>& votes) { return std::accumulate(votes.begin(), votes.end(), 0); }

double chance_of_features(Seen one, double radius_arcsec)
{
    one.galaxy.disk_profile.radius_arcsec = radius_arcsec;
    return answer_chances(one.galaxy, one.imaging)[smooth_or_featured][1];
}

TEST_F(Votes, AreTheSameForASeedAndOthersForAnother)
{
    int others = 0;
    for (const auto& [galaxy, imaging] : *seen) {
        const auto votes = votes_on(galaxy, imaging, seed);
        EXPECT_EQ(votes, votes_on(galaxy, imaging, seed));
        others += votes != votes_on(galaxy, imaging, seed + 1);
    }
    EXPECT_GT(others, 900);
}

TEST_F(Votes, HaveChancesThatAddUpToOne)
{
    for (const auto& [galaxy, imaging] : *seen) {
        const auto chances = answer_chances(galaxy, imaging);
        ASSERT_EQ(chances.size(), polls().size());
        for (std::size_t p = 0; p < polls().size(); ++p) {
            ASSERT_EQ(chances[p].size(), polls()[p].answers.size()) << polls()[p].question;
            EXPECT_NEAR(std::accumulate(chances[p].begin(), chances[p].end(), 0.0), 1, 1e-12);
            for (const double chance : chances[p]) {
                EXPECT_GE(chance, 0) << polls()[p].question;
            }
        }
    }
}

TEST_F(Votes, AreAskedForByTheAnswersBefore)
{
    for (const auto& [galaxy, imaging] : *seen) {
        const auto votes = votes_on(galaxy, imaging, seed);
        EXPECT_EQ(sum(votes[how_rounded]), votes[smooth_or_featured][0]);
        EXPECT_EQ(sum(votes[edge_on]), votes[smooth_or_featured][1]);
        EXPECT_EQ(sum(votes[spiral_arms]), votes[edge_on][1]);
        EXPECT_EQ(sum(votes[bulge_size]), votes[edge_on][1]);
    }
}

TEST_F(Votes, AreAboutFortyAndSeldomFew)
{
    int sure = 0, few = 0;
    for (const auto& [galaxy, imaging] : *seen) {
        const int voters = sum(votes_on(galaxy, imaging, seed)[smooth_or_featured]);
        EXPECT_GE(voters, 1);
        sure += voters > 34;
        few += voters < 3;
    }
    EXPECT_GT(sure, 800);
    EXPECT_LT(sure, 950);
    EXPECT_GT(few, 0);
    EXPECT_LT(few, 40);
}

TEST_F(Votes, FallAsOftenAsTheChancesSay)
{
    double expected = 0, variance = 0;
    int given = 0;
    for (const auto& [galaxy, imaging] : *seen) {
        const double chance = answer_chances(galaxy, imaging)[smooth_or_featured][1];
        const auto votes = votes_on(galaxy, imaging, seed)[smooth_or_featured];
        given += votes[1];
        expected += sum(votes) * chance;
        variance += sum(votes) * chance * (1 - chance);
    }
    EXPECT_NEAR(given, expected, 4 * std::sqrt(variance));
}

TEST_F(Votes, SeeADiskWhereItIsResolvedAndNoneInAnElliptical)
{
    int ellipticals = 0, disks = 0;
    for (const auto& one : *seen) {
        const double in_bulge = one.galaxy.part_flux[bulge][1] / one.galaxy.flux[1];
        EXPECT_LE(chance_of_features(one, 0.5), chance_of_features(one, 1));
        if (in_bulge > 0.999) {
            ++ellipticals;
            EXPECT_LT(chance_of_features(one, 5), 0.01);
        } else if (in_bulge < 0.2) {
            ++disks;
            EXPECT_GT(chance_of_features(one, 5), 0.9);
            EXPECT_LT(chance_of_features(one, 0.2), 0.05);
        }
    }
    EXPECT_GT(ellipticals, 50);
    EXPECT_GT(disks, 50);
}

}  // namespace
}  // namespace astroclip::simulate
