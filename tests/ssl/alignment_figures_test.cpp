#include "ssl/alignment_figures.hpp"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>

#include "ssl/info_nce.hpp"
#include "support/deterministic_fill.hpp"

namespace astroclip::ssl {
namespace {

TEST(AlignmentFigures, OfPairsThatCoincideAreThoseOfPerfectAlignment)
{
    const auto axes = at::eye(16);
    const auto figures = alignment_figures(axes, axes);
    EXPECT_EQ(figures.at("recall_at_1_is"), 1);
    EXPECT_EQ(figures.at("recall_at_1_si"), 1);
    EXPECT_EQ(figures.at("mutual_neighbours"), 1);
    EXPECT_EQ(figures.at("modality_gap"), 0);
    // Sixteen axes less the one that centring takes; roots of rounding errors of 1e-16 come on top.
    EXPECT_NEAR(figures.at("effective_rank_image"), 15, 1e-6);
}

TEST(AlignmentFigures, CountThePlaceOfThePartner)
{
    // Image i looks like spectrum i + 1: its own is behind one other.
    const auto spectra = at::eye(16);
    const auto images = unit_rows(at::roll(spectra, -1, 0) + 0.5 * spectra);
    const auto figures = alignment_figures(images, spectra);
    EXPECT_EQ(figures.at("recall_at_1_is"), 0);
    EXPECT_EQ(figures.at("recall_at_5_is"), 1);
    EXPECT_EQ(figures.at("mutual_neighbours"), 0);
}

TEST(AlignmentFigures, SeeAGapBetweenTheModalitiesAndACollapse)
{
    const auto line =
        unit_rows(at::ones({20, 8}) + 1e-3 * test::fill_tensor(1, {20, 1}) * test::fill_tensor(2, {1, 8}));
    const auto figures = alignment_figures(line, -line);
    EXPECT_NEAR(figures.at("modality_gap"), 2, 1e-3);
    EXPECT_NEAR(figures.at("effective_rank_image"), 1, 0.1);
}

TEST(AlignmentFigures, FindNothingWhereAllVectorsAreTheSame)
{
    const auto same = at::ones({40, 8}) / std::sqrt(8.0);
    const auto figures = alignment_figures(same, same);
    EXPECT_EQ(figures.at("recall_at_10_is"), 0);  // each is 19.5th of 40
    EXPECT_EQ(figures.at("mutual_neighbours"), 0);
}

}  // namespace
}  // namespace astroclip::ssl
