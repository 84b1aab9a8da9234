#include "survey/desi.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "core/error.hpp"

namespace astroclip::survey {
namespace {

const std::string data = TEST_DATA "/survey/";
const std::string coadd4 = data + "coadd-4-80613-thru20210324.fits";
const std::string coadd5 = data + "coadd-5-169-thru20210419.fits.gz";
const std::string spectra5 = data + "spectra-5-169-thru20210419.fits.gz";
const std::string nameless = data + "test_coadd_3.fits";

SpectrumOptions with_redshifts(const std::string& path)
{
    return {ArmRule::edr, false, redshift_file_beside(path)};
}

double sum(const std::vector<float>& values) { return std::accumulate(values.begin(), values.end(), 0.0); }

double median_signal_to_noise(const Spectrum& s)
{
    std::vector<double> ratio;
    for (std::size_t i = 0; i < s.flux.size(); ++i) {
        ratio.push_back(s.flux[i] * std::sqrt(s.ivar[i]));
    }
    std::nth_element(ratio.begin(), ratio.begin() + ratio.size() / 2, ratio.end());
    return ratio[ratio.size() / 2];
}

// What astropy reads and numpy combines in double precision; flux and ivar may differ in the last bit of a
// float.
struct Bin {
    int bin;
    float flux, ivar;
};
void expect_bins(const Spectrum& s, const std::vector<Bin>& bins)
{
    for (const auto& [bin, flux, ivar] : bins) {
        EXPECT_FLOAT_EQ(s.flux[bin], flux) << bin;
        EXPECT_FLOAT_EQ(s.ivar[bin], ivar) << bin;
    }
}

TEST(Desi, ReadsARealGalaxyWithItsRedshiftAndPhotometry)
{
    const auto file = SpectrumFile::open(coadd4, with_redshifts(coadd4));
    ASSERT_EQ(file->targets().size(), 1u);
    const auto& t = file->targets()[0];
    EXPECT_EQ(t.object_id, 39633345008634465);
    EXPECT_EQ(t.ra, 105.48977452498902);
    EXPECT_EQ(t.dec, 56.669300058331935);
    EXPECT_EQ(t.objtype, "TGT");
    EXPECT_EQ(pack_object_id(t.brick), t.object_id);
    EXPECT_EQ(t.flux_g, 3.2370327f);
    EXPECT_EQ(t.flux_r, 5.947273f);
    EXPECT_EQ(t.flux_z, 8.337608f);
    EXPECT_EQ(t.ebv, 0.0514118f);
    EXPECT_NEAR(t.redshift.z, 0.36874355, 1e-8);
    EXPECT_NEAR(t.redshift.error, 1.17961562e-06, 1e-14);
    EXPECT_EQ(t.redshift.warning, 0);
    EXPECT_EQ(t.redshift.spectype, "GALAXY");
    EXPECT_EQ(TargetSelection{}.reason_against(t), "");
}

TEST(Desi, CombinesTheArmsOfARealGalaxyAsNumpyDoes)
{
    const auto file = SpectrumFile::open(coadd4, {});
    const auto s = file->read(file->targets()[0]);
    EXPECT_EQ(s.damaged_pixels, 0);
    EXPECT_EQ(std::count_if(s.ivar.begin(), s.ivar.end(), [](float v) { return v > 0; }), 7781);
    EXPECT_EQ(std::count_if(s.mask.begin(), s.mask.end(), [](auto m) { return m != 0; }), 0);
    EXPECT_NEAR(median_signal_to_noise(s), 5.205286, 1e-4);
    EXPECT_NEAR(sum(s.flux), 8558.48474, 1e-4);
    EXPECT_NEAR(sum(s.ivar), 344387.943, 1e-2);
    expect_bins(s, {{0, 1.74080539f, 0.115118526f},
                    {2699, 1.18228006f, 4.55884981f},
                    {2700, 1.35261583f, 20.2195969f},
                    {2725, 1.13610458f, 17.9890327f},
                    {2750, 1.24818635f, 22.5201797f},
                    {2751, 1.52239776f, 22.4207859f},
                    {4900, 0.892105281f, 51.4530869f},
                    {5025, 0.689625561f, 46.3969193f},
                    {7780, 0.564732432f, 78.2948456f}});
}

TEST(Desi, FindsTheEmissionLinesOfARealGalaxyAtItsRedshift)
{
    const auto file = SpectrumFile::open(coadd4, {});
    const auto s = file->read(file->targets()[0]);
    // [OII], H beta, [OIII], H alpha: peak over the median around it, as measured with numpy.
    for (const auto& [line, height] :
         std::vector<std::pair<double, double>>{{5103.4, 18}, {6655.8, 12}, {6854.9, 31}, {8985.3, 46}}) {
        const auto centre = s.flux.begin() + std::lround((line - 3600) / 0.8);
        const auto peak = std::max_element(centre - 5, centre + 6);
        std::vector<float> around(centre - 100, centre - 20);
        around.insert(around.end(), centre + 20, centre + 100);
        std::nth_element(around.begin(), around.begin() + 80, around.end());
        EXPECT_NEAR(*peak / around[80], height, 0.05 * height) << line;
        EXPECT_LE(std::abs(peak - centre), 2) << line;
    }
}

TEST(Desi, TellsTheOneUsableFibreOfATileFromTheOthers)
{
    for (const auto& path : {coadd5, spectra5}) {
        const auto file = SpectrumFile::open(path, with_redshifts(path));
        std::vector<std::string> reasons;
        for (const auto& target : file->targets()) {
            reasons.push_back(TargetSelection{}.reason_against(target));
            EXPECT_TRUE(std::isnan(target.redshift.z));  // no redrock file beside it
            EXPECT_EQ(target.redshift.warning, -1);
        }
        EXPECT_EQ(reasons, (std::vector<std::string>{"not a target", "fibre status", "not a target",
                                                     "not a target", ""}))
            << path;
        EXPECT_EQ(file->targets()[4].object_id, 39633300968442591);
        EXPECT_EQ(file->targets()[0].object_id, -1695072);
    }
}

TEST(Desi, ReadsUnsignedAndCompressedMasks)
{
    const auto coadd = SpectrumFile::open(coadd5, {});
    const auto whole = coadd->read(coadd->targets()[4]);
    EXPECT_NEAR(sum(whole.flux), 1370.97602, 1e-4);
    EXPECT_NEAR(sum(whole.ivar), 117689.386, 1e-2);
    expect_bins(whole, {{2700, 0.844600379f, 4.97011375f}, {5000, 0.31758675f, 2.68264294f}});
    // Bins in no overlap that cosmic rays and the like have masked.
    const auto exposure = SpectrumFile::open(spectra5, {});
    const auto s = exposure->read(exposure->targets()[4]);
    std::vector<int> masked;
    for (int i = 0; i < desi_bins; ++i) {
        if (s.mask[i] != 0) {
            masked.push_back(i);
            EXPECT_EQ(s.ivar[i], 0);
            EXPECT_EQ(s.flux[i], 0);
        }
    }
    EXPECT_EQ(masked, (std::vector<int>{4395, 4396, 4397, 4398, 5377, 5378, 5379, 5380, 6417, 6418, 6419,
                                        6420, 6421, 6854, 6855, 6856, 6857}));
    EXPECT_NEAR(sum(s.flux), 1366.5132, 1e-4);
    expect_bins(s, {{0, 14.1110229f, 0.0140653281f},
                    {2725, -0.274469107f, 1.81174374f},
                    {7780, 0.309345126f, 14.6495075f}});
}

TEST(Desi, RefusesAFileWithoutFibermapUnlessAnonymous)
{
    try {
        SpectrumFile::open(nameless, {});
        FAIL();
    } catch (const DataError& error) {
        EXPECT_NE(
            std::string(error.what()).find("no HDU 'FIBERMAP': its 3 spectra have neither ids nor positions"),
            std::string::npos)
            << error.what();
    }
    const auto file = SpectrumFile::open(nameless, {ArmRule::edr, true, ""});
    ASSERT_EQ(file->targets().size(), 3u);
    EXPECT_TRUE(is_anonymous(file->targets()[2].object_id));
    EXPECT_EQ(file->targets()[0].ra, 0);
    const auto s = file->read(file->targets()[0]);
    EXPECT_NEAR(sum(s.flux), -300.435966, 1e-4);
    EXPECT_EQ(s.ivar[7780], 0);
    const auto empty = file->read(file->targets()[1]);
    EXPECT_EQ(sum(empty.ivar), 0);
    EXPECT_EQ(sum(empty.flux), 0);
}

TEST(Desi, ReadsRedshiftsByTarget)
{
    const auto redshifts = read_redshifts(data + "redrock-test.fits.gz");
    ASSERT_EQ(redshifts.size(), 3u);
    EXPECT_NEAR(redshifts.at(616094145466860255).z, 1.32828155, 1e-8);
    EXPECT_EQ(redshifts.at(616094145466860255).warning, 1);
    EXPECT_NEAR(redshifts.at(39633393167631849).z, 0.157138086, 1e-9);
    EXPECT_NEAR(redshifts.at(39633393167633604).z, -1.11682586e-04, 1e-12);
    EXPECT_EQ(redshifts.at(39633393167633604).spectype, "GALAXY");
}

TEST(Desi, FindsTheRedshiftsBesideTheSpectra)
{
    EXPECT_EQ(redshift_file_beside(coadd4), data + "redrock-4-80613-thru20210324.fits");
    EXPECT_EQ(redshift_file_beside(coadd5), "");
    EXPECT_EQ(redshift_file_beside(nameless), "");
}

TEST(Desi, SelectsByRedshiftWarning)
{
    Target target;
    target.object_id = 5;
    EXPECT_EQ(TargetSelection{.max_zwarn = -1}.reason_against(target), "");
    EXPECT_EQ(TargetSelection{.max_zwarn = 0}.reason_against(target), "redshift warning");
    target.redshift.warning = 4;
    EXPECT_EQ(TargetSelection{.max_zwarn = 3}.reason_against(target), "redshift warning");
    EXPECT_EQ(TargetSelection{.max_zwarn = 4}.reason_against(target), "");
    target.objtype = "SKY";
    EXPECT_EQ(TargetSelection{}.reason_against(target), "sky fibre");
}

TEST(Desi, SaysThatRedrockOutputHoldsNoSpectra)
{
    try {
        SpectrumFile::open(data + "redrock-4-80613-thru20210324.fits", {});
        FAIL();
    } catch (const DataError& error) {
        EXPECT_NE(std::string(error.what()).find("holds redshifts, no spectra"), std::string::npos);
    }
    EXPECT_THROW(SpectrumFile::open(data + "tractor-1054p567.fits", {}), DataError);
}

TEST(Desi, VerifiesChecksumsOfRealFiles)
{
    for (const auto& path : {coadd4, coadd5, spectra5}) {
        SpectrumFile::open(path, {})->verify_checksums();
    }
}

}  // namespace
}  // namespace astroclip::survey
