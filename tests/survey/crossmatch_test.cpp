#include "survey/crossmatch.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numbers>

#include "core/random.hpp"
#include "survey/sky.hpp"

namespace astroclip::survey {
namespace {

void add(Sources& sources, std::int64_t id, double ra, double dec)
{
    sources.object_id.push_back(id);
    sources.ra.push_back(ra);
    sources.dec.push_back(dec);
}

// A point at most `radius` arcsec from (ra, dec), also at the poles and over RA 0.
void add_near(Sources& sources, std::int64_t id, double ra, double dec, double radius, Random& random)
{
    auto v = unit_vector(ra, dec);
    for (auto& x : v) {
        x += random.uniform(-1, 1) * radius / 206264.8;
    }
    const double length = std::hypot(v[0], v[1], v[2]);
    const double degree = 180 / std::numbers::pi;
    add(sources, id, std::atan2(v[1], v[0]) * degree,
        std::asin(std::clamp(v[2] / length, -1.0, 1.0)) * degree);
}

// Points over the whole sphere, crowded at both poles and along RA 0, each with a neighbour a few arcsec off.
void make_catalogues(int n, Sources& first, Sources& second)
{
    Random random(1, "crossmatch-test");
    for (int i = 0; i < n; ++i) {
        double ra = random.uniform(0, 360), dec = std::asin(random.uniform(-1, 1)) * 180 / std::numbers::pi;
        if (i % 4 == 1) {
            dec = (i % 8 == 1 ? 1 : -1) * (90 - random.uniform() * 0.005);
        } else if (i % 4 == 2) {
            ra = random.uniform(-0.002, 0.002);
        }
        add(first, 1000 + i, ra, dec);
        add_near(second, 500000 - i, ra, dec, 2.5, random);
    }
}

std::vector<Match> brute_force(const Sources& first, const Sources& second, double radius)
{
    const auto n = first.ra.size(), m = second.ra.size();
    std::vector<UnitVector> a, b;
    for (std::size_t i = 0; i < n; ++i) a.push_back(unit_vector(first.ra[i], first.dec[i]));
    for (std::size_t j = 0; j < m; ++j) b.push_back(unit_vector(second.ra[j], second.dec[j]));
    std::vector<std::int64_t> best_of_a(n, -1), best_of_b(m, -1);
    std::vector<double> at_a(n, INFINITY), at_b(m, INFINITY);
    for (std::size_t i = 0; i < n; ++i) {
        for (std::size_t j = 0; j < m; ++j) {
            // A cheap bound first, or 10^8 arctangents take half a minute.
            if (std::abs(a[i][2] - b[j][2]) > 1e-4 || std::abs(a[i][0] - b[j][0]) > 1e-4) {
                continue;
            }
            const double s = separation_arcsec(a[i], b[j]);
            if (s > radius) {
                continue;
            }
            if (s < at_a[i] || (s == at_a[i] && second.object_id[j] < second.object_id[best_of_a[i]])) {
                at_a[i] = s;
                best_of_a[i] = static_cast<std::int64_t>(j);
            }
            if (s < at_b[j] || (s == at_b[j] && first.object_id[i] < first.object_id[best_of_b[j]])) {
                at_b[j] = s;
                best_of_b[j] = static_cast<std::int64_t>(i);
            }
        }
    }
    std::vector<Match> matches;
    for (std::size_t i = 0; i < n; ++i) {
        if (best_of_a[i] >= 0 && best_of_b[best_of_a[i]] == static_cast<std::int64_t>(i)) {
            matches.push_back({static_cast<std::int64_t>(i), best_of_a[i], at_a[i]});
        }
    }
    return matches;
}

TEST(Crossmatch, EqualsBruteForceOnTheWholeSphere)
{
    Sources first, second;
    make_catalogues(10000, first, second);
    for (const double radius : {1.0, 5.0}) {
        const auto expected = brute_force(first, second, radius);
        EXPECT_GT(expected.size(), 300u);
        EXPECT_EQ(match_on_sky(first, second, radius), expected) << radius;
    }
}

TEST(Crossmatch, IsTheSameSeenFromEitherSide)
{
    Sources first, second;
    make_catalogues(2000, first, second);
    const auto forward = match_on_sky(first, second, 3);
    auto backward = match_on_sky(second, first, 3);
    for (auto& match : backward) {
        std::swap(match.first, match.second);
    }
    std::sort(backward.begin(), backward.end(),
              [](const auto& a, const auto& b) { return a.first < b.first; });
    EXPECT_EQ(forward, backward);
}

TEST(Crossmatch, TakesTheSmallerIdOfTwoAtTheSamePlace)
{
    Sources first, second;
    add(first, 1, 10, 20);
    add(second, 8, 10, 20);
    add(second, 5, 10, 20);
    const auto matches = match_on_sky(first, second, 1);
    ASSERT_EQ(matches.size(), 1u);
    EXPECT_EQ(matches[0].second, 1);
}

TEST(Crossmatch, MatchesOverRaZeroAndAtThePole)
{
    Sources first, second;
    add(first, 1, 359.99995, 0);
    add(first, 2, 45, 89.9999);
    add(second, 3, 0.00005, 0);    // 0.36 arcsec
    add(second, 4, 225, 89.9999);  // 0.72 arcsec over the pole
    const auto matches = match_on_sky(first, second, 1);
    ASSERT_EQ(matches.size(), 2u);
    EXPECT_NEAR(matches[0].separation_arcsec, 0.36, 1e-6);
    EXPECT_NEAR(matches[1].separation_arcsec, 0.72, 1e-6);
    EXPECT_TRUE(match_on_sky(first, second, 0.3).empty());
}

TEST(Crossmatch, JoinsByIdInTheOrderOfTheFirst)
{
    Sources first, second;
    add(first, 30, 10, 0);
    add(first, 10, 11, 0);
    add(first, 99, 12, 0);
    add(second, 10, 11, 0.0001);
    add(second, 20, 13, 0);
    add(second, 30, 10, 0);
    const auto matches = match_by_id(first, second);
    ASSERT_EQ(matches.size(), 2u);
    EXPECT_EQ(matches[0], (Match{0, 2, 0}));
    EXPECT_EQ(matches[1].second, 0);
    EXPECT_NEAR(matches[1].separation_arcsec, 0.36, 1e-9);
}

TEST(Crossmatch, FindsNothingInNothing)
{
    Sources none, some;
    add(some, 1, 10, 20);
    EXPECT_TRUE(match_on_sky(none, some, 1).empty());
    EXPECT_TRUE(match_on_sky(some, none, 1).empty());
    EXPECT_TRUE(match_by_id(none, some).empty());
}

}  // namespace
}  // namespace astroclip::survey
