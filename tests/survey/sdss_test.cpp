#include "survey/sdss.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "core/error.hpp"

namespace astroclip::survey {
namespace {

const std::string data = TEST_DATA "/survey/sdss/";

TEST(Sdss, ReadsWhatTheTableSaysAboutAGalaxy)
{
    const auto file = SpectrumFile::open(data + "spec-4055-55359-0006.fits.gz", {});  // BOSS, HDU SPALL
    ASSERT_EQ(file->targets().size(), 1u);
    const auto& t = file->targets()[0];
    EXPECT_EQ(t.object_id, sdss_object_id(4055, 55359, 6));
    EXPECT_NEAR(t.ra, 237.85517, 1e-9);
    EXPECT_NEAR(t.dec, 2.0274375, 1e-9);
    EXPECT_FLOAT_EQ(static_cast<float>(t.redshift.z), 0.21377261f);
    EXPECT_EQ(t.redshift.warning, 0);
    EXPECT_EQ(t.redshift.spectype, "GALAXY");
    EXPECT_EQ(t.brick, BrickId{});
    EXPECT_TRUE(std::isnan(t.flux_g));
    EXPECT_EQ(TargetSelection{}.reason_against(t), "");
    file->verify_checksums();
}

TEST(Sdss, RefusesASkyFibreWhateverItsClass)
{
    const auto file = SpectrumFile::open(data + "spec-1944-53385-0159.fits.gz", {});
    const auto& t = file->targets()[0];
    EXPECT_EQ(t.redshift.spectype, "GALAXY");
    EXPECT_EQ(t.redshift.warning, 5);
    EXPECT_EQ(TargetSelection{}.reason_against(t), "sky fibre");
}

TEST(Sdss, KeepsEmissionLinesAtTheirWavelength)
{
    const auto file = SpectrumFile::open(data + "spec-0854-52373-0369.fits.gz", {});
    const auto s = file->read(file->targets()[0]);
    // Vacuum wavelengths of H alpha, [OIII] and H beta. In air they would lie 1.4 to 1.8 Angstrom, two bins,
    // to the blue; a pixel of SDSS is up to 1.6 Angstrom there.
    for (const double line : {6564.61, 5008.24, 4862.68}) {
        const auto expected = line * (1 + file->targets()[0].redshift.z);
        const auto centre = s.flux.begin() + std::lround((expected - 3600) / 0.8);
        const auto peak = std::max_element(centre - 12, centre + 13);
        // The middle of the bins that hold the pixel of the peak.
        const auto same = std::find_if(peak, centre + 13, [&](float f) { return f < *peak * 0.999f; });
        const auto at =
            3600 + 0.8 * (0.5 * static_cast<double>((peak - s.flux.begin()) + (same - 1 - s.flux.begin())));
        EXPECT_NEAR(at, expected, 1.2) << line;
    }
}

TEST(Sdss, LeavesTheRestOfTheGridWithoutData)
{
    const auto file = SpectrumFile::open(data + "spec-0854-52373-0369.fits.gz", {});
    const auto s = file->read(file->targets()[0]);
    EXPECT_EQ(s.mask.front(), no_data_bit);
    EXPECT_EQ(s.ivar.front(), 0);
    EXPECT_EQ(s.flux.back(), 0);
    EXPECT_EQ(s.damaged_pixels, 0);
}

TEST(Sdss, WantsItsComb)
{
    std::vector<double> comb;
    for (int k = 35811; k < 36811; ++k) {
        comb.push_back(static_cast<float>(k * 1e-4));
    }
    const auto edges = sdss_pixel_edges(comb, "x");
    ASSERT_EQ(edges.size(), 1001u);
    EXPECT_NEAR(edges[0], std::pow(10, 3.58105), 1e-9);  // the rounding to float32 is gone
    EXPECT_NEAR(edges[1000], std::pow(10, 3.68105), 1e-9);
    auto gap = comb;
    gap.erase(gap.begin() + 500);
    EXPECT_THROW(sdss_pixel_edges(gap, "x"), DataError);
    comb[3] = std::nan("");
    EXPECT_THROW(sdss_pixel_edges(comb, "x"), DataError);
}

TEST(Sdss, ReadsAMangaStackAsAnonymous)
{
    const auto path = data + "MaNGA_test_spectra.fits.gz";
    try {
        SpectrumFile::open(path, {});
        FAIL();
    } catch (const DataError& error) {
        EXPECT_NE(std::string(error.what()).find("its 8 spectra have neither ids nor positions"),
                  std::string::npos)
            << error.what();
    }
    const auto file = SpectrumFile::open(path, {.anonymous = true});
    ASSERT_EQ(file->targets().size(), 8u);
    EXPECT_TRUE(is_anonymous(file->targets()[0].object_id));
    EXPECT_NEAR(file->targets()[0].redshift.z, 0.0495282, 1e-12);
    EXPECT_EQ(file->targets()[0].redshift.warning, -1);  // the file does not say
    const auto masked = file->read(file->targets()[5]);  // every pixel has MASK set, half of them ivar > 0
    EXPECT_EQ(std::count(masked.ivar.begin(), masked.ivar.end(), 0.0f), desi_bins);
}

}  // namespace
}  // namespace astroclip::survey
