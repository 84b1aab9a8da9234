#include "survey/wcs.hpp"

#include <gtest/gtest.h>

#include <cmath>

#include "core/error.hpp"
#include "survey/sky.hpp"
#include "survey/table.hpp"

namespace astroclip::survey {
namespace {

// Files and positions of tools/reference/make_coadd_fixtures.py, by astropy.
const std::string folder = TEST_DATA "/survey/coadds/";

Wcs wcs_of(const std::string& name)
{
    const fits::File file(folder + "wcs-" + name + ".fits");
    return Wcs::of(file, 0).value();
}

TEST(Wcs, AgreesWithAstropyInBothDirections)
{
    const auto table = Table::open(folder + "wcs.csv");
    const auto names = table->texts("file");
    const auto x = table->numbers("x"), y = table->numbers("y"), ra = table->numbers("ra"),
               dec = table->numbers("dec");
    ASSERT_EQ(names.size(), 40u);
    for (std::size_t i = 0; i < names.size(); ++i) {
        SCOPED_TRACE(names[i] + " " + std::to_string(i));
        const auto wcs = wcs_of(names[i]);
        const auto sky = wcs.to_sky({x[i], y[i]});
        EXPECT_LT(separation_arcsec(sky[0], sky[1], ra[i], dec[i]), 1e-6);
        const auto pixel = wcs.to_pixels({ra[i], dec[i]});
        EXPECT_NEAR(pixel[0], x[i], 1e-5);  // the inverse of distortions is found by iteration
        EXPECT_NEAR(pixel[1], y[i], 1e-5);
    }
}

TEST(Wcs, TakesManyPointsAtOnceAndMarksThoseBeyondTheProjection)
{
    const auto wcs = wcs_of("brick");
    const auto pixels = wcs.to_pixels({95.9504132231405, 80.5, 95.9504132231405 + 180, -80.5, 95.95, 80.6});
    EXPECT_NEAR(pixels[0], 1799.5, 1e-6);  // CRPIX counts from 1
    EXPECT_NEAR(pixels[1], 1799.5, 1e-6);
    EXPECT_TRUE(std::isnan(pixels[2]) && std::isnan(pixels[3]));
    EXPECT_GT(pixels[5], 3000);
    EXPECT_TRUE(wcs.to_pixels({}).empty());
}

TEST(Wcs, KnowsTheAreaOfAPixel)
{
    EXPECT_NEAR(wcs_of("brick").pixel_scale_arcsec(1799.5, 1799.5), 0.262, 1e-9);
    EXPECT_NEAR(wcs_of("swapped").pixel_scale_arcsec(1, 2), 4 * 0.262, 1e-8);
}

TEST(Wcs, IsAbsentWhereTheHeaderHasNone)
{
    const fits::File file(TEST_DATA "/survey/coadd-4-80613-thru20210324.fits");
    EXPECT_FALSE(Wcs::of(file, file.find("B_FLUX")));
}

}  // namespace
}  // namespace astroclip::survey
