#include "survey/sky.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace astroclip::survey {
namespace {

TEST(Sky, SeparatesCloseAndOppositePointsAlikeWell)
{
    // One microarcsecond and 180 degrees less one milliarcsecond: acos of the scalar product sees neither.
    EXPECT_NEAR(separation_arcsec(10, 0, 10, 1e-6 / 3600), 1e-6, 1e-10);
    EXPECT_NEAR(separation_arcsec(0, 0, 180, 1e-3 / 3600), 180 * 3600 - 1e-3, 1e-9 * 180 * 3600);
    EXPECT_NEAR(separation_arcsec(0, 0, 90, 0), 90 * 3600, 1e-9);
}

TEST(Sky, MeasuresAcrossRaZeroAndThePoles)
{
    EXPECT_NEAR(separation_arcsec(359.9999, 0, 0.0001, 0), 0.72, 1e-9);
    EXPECT_NEAR(separation_arcsec(0, 89.9999, 180, 89.9999), 0.72, 1e-9);
    EXPECT_NEAR(separation_arcsec(17, -90, 211, -90), 0, 1e-9);
}

TEST(Sky, WrapsRightAscension)
{
    EXPECT_EQ(wrapped_ra(370), 10);
    EXPECT_EQ(wrapped_ra(-10), 350);
    EXPECT_EQ(wrapped_ra(360), 0);
    EXPECT_EQ(wrapped_ra(-1e-20), 0);
}

TEST(Sky, GivesTheChordOfAnAngle)
{
    EXPECT_NEAR(chord(180 * 3600), 2, 1e-15);
    EXPECT_NEAR(chord(1), 1 / 206264.80624709636, 1e-17);
}

TEST(Sky, KnowsWhatIsNoPosition)
{
    EXPECT_TRUE(is_position(370, -90));
    EXPECT_FALSE(is_position(10, 90.1));
    EXPECT_FALSE(is_position(std::numeric_limits<double>::quiet_NaN(), 0));
    EXPECT_FALSE(is_position(0, std::numeric_limits<double>::quiet_NaN()));
}

}  // namespace
}  // namespace astroclip::survey
