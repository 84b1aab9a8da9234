#include "survey/sky_image.hpp"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <filesystem>
#include <numeric>

#include "core/error.hpp"
#include "support/sky_files.hpp"

namespace astroclip::survey {
namespace {

class SkyImages : public testing::Test {
protected:
    void SetUp() override
    {
        folder = testing::TempDir() + "sky-image-" + std::to_string(getpid()) + "/";
        std::filesystem::create_directories(folder);
    }
    void TearDown() override { std::filesystem::remove_all(folder); }
    SkyImage image(const std::string& name, const test::SkyFile& file) const
    {
        std::filesystem::remove(folder + name);
        file.write(folder + name);
        return SkyImage(folder + name);
    }
    std::string problem(const test::SkyFile& file) const
    {
        try {
            image("refused.fits", file);
        } catch (const DataError& error) {
            return error.what();
        }
        return "";
    }
    std::string folder;
};

// A round source with a peak of 10 nanomaggy a pixel of 0.262 arcsec, in the middle of a file's grid.
float source(double dx_pixels, double dy_pixels, double scale = 1)
{
    constexpr double sigma = 2.5;
    return static_cast<float>(
        10 * scale * scale *
        std::exp(-scale * scale * (dx_pixels * dx_pixels + dy_pixels * dy_pixels) / (2 * sigma * sigma)));
}

TEST_F(SkyImages, OnOneGridAreCopiedPixelByPixel)
{
    const auto value = [](long x, long y) { return static_cast<float>(1 + x + 1000 * y); };
    const auto left = image("left.fits", {.pixel = value});
    const auto right =
        image("right.fits", {.crpix_x = 30.5 - 50, .crpix_y = 30.5 + 3, .pixel = [&](long x, long y) {
                                 return value(x + 50, y - 3);
                             }});
    const PixelBox box{45, 20, 24};
    Canvas canvas(box.size);
    left.fill(canvas, left, box);
    EXPECT_EQ(canvas.missing, 24 * 9);
    right.fill(canvas, left, box);
    ASSERT_EQ(canvas.missing, 0);
    for (int y = 0; y < 24; ++y) {
        for (int x = 0; x < 24; ++x) {
            ASSERT_EQ(canvas.pixels[static_cast<std::size_t>(24 * y + x)], value(x + 45, y + 20));
        }
    }
}

TEST_F(SkyImages, OnAnotherGridGiveASourceItsFluxAndPlace)
{
    const auto reference = image("reference.fits", {});
    const double scale = 1.008;  // the pixels' size may differ by 1 %
    for (const double turn : {0.0, 17.0, 140.0}) {
        const auto other = image("other.fits", {.ra = 150.0,
                                                .dec = 2.0,
                                                .crpix_x = 33.27,
                                                .crpix_y = 29.61,
                                                .scale_arcsec = 0.262 * scale,
                                                .turn_deg = turn,
                                                .pixel = [&](long x, long y) {
                                                    return source(static_cast<double>(x) - 32.27,
                                                                  static_cast<double>(y) - 28.61, scale);
                                                }});
        const PixelBox box{14, 14, 32};
        Canvas canvas(box.size);
        other.fill(canvas, reference, box);
        ASSERT_EQ(canvas.missing, 0);
        double sum = 0;
        for (int y = 0; y < 32; ++y) {
            for (int x = 0; x < 32; ++x) {
                const auto value = canvas.pixels[static_cast<std::size_t>(32 * y + x)];
                sum += value;
                // Lanczos of 3 lobes ripples by up to 0.4 % of the peak of a source of this width.
                EXPECT_NEAR(value, source(x + 14 - 29.5, y + 14 - 29.5), 0.04) << x << ' ' << y;
            }
        }
        EXPECT_NEAR(sum, 2 * M_PI * 2.5 * 2.5 * 10, 0.4) << turn;  // 1e-3 of it
    }
}

TEST_F(SkyImages, KeepGapsWithoutDataWhenResampled)
{
    const auto reference = image("reference.fits", {});
    const auto other = image("other.fits", {.crpix_x = 30.9, .pixel = [](long x, long y) {
                                                return x == 40 && y == 30 ? NAN : x < 30 ? 0.0F : 7.0F;
                                            }});
    const PixelBox box{20, 20, 24};
    Canvas canvas(box.size);
    other.fill(canvas, reference, box);
    ASSERT_EQ(canvas.missing, 0);
    int zeros = 0, gaps = 0;
    for (const auto value : canvas.pixels) {
        zeros += value == 0;
        gaps += std::isnan(value);
        EXPECT_TRUE(std::isnan(value) || value == 0 || std::abs(value - 7) < 1e-5F) << value;  // no ringing
    }
    EXPECT_EQ(zeros, 10 * 24);
    EXPECT_EQ(gaps, 1);
}

TEST_F(SkyImages, KnowHowFarTheirEdgeIs)
{
    const auto one = image("one.fits", {.width = 60, .height = 40});
    EXPECT_EQ(one.depth(29.5, 19.5), 20);
    EXPECT_EQ(one.depth(2, 19.5), 2.5);
    EXPECT_EQ(one.depth(59.5, 10), 0);
    EXPECT_EQ(one.depth(3, -5), -4.5);
    EXPECT_TRUE(std::isnan(one.depth(NAN, 3)));
}

TEST_F(SkyImages, SayWhatIsWrongWithAFile)
{
    EXPECT_NE(problem({.unit = "adu"}).find("refused.fits: BUNIT = 'adu', nanomaggy expected"),
              std::string::npos);
    EXPECT_NE(problem({.unit = ""}).find("BUNIT = '', nanomaggy expected"), std::string::npos);
    EXPECT_NE(problem({.projection = ""}).find("no world coordinates"), std::string::npos);
    EXPECT_NE(problem({.projection = "XYZ"}).find("refused.fits: "), std::string::npos);
    EXPECT_THROW(SkyImage(TEST_DATA "/survey/cutouts/plain.fits"), DataError);  // three bands in one image
    EXPECT_THROW(SkyImage(TEST_DATA "/README.md"), DataError);
    EXPECT_THROW(SkyImage(folder + "nowhere.fits"), MissingInput);
    EXPECT_EQ(problem({.unit = "nanomaggies"}), "");
}

}  // namespace
}  // namespace astroclip::survey
