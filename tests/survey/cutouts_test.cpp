#include "survey/cutouts.hpp"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <map>

#include "core/error.hpp"
#include "core/hdf5.hpp"
#include "survey/legacy_survey.hpp"

namespace astroclip::survey {
namespace {

// Files of tools/reference/make_survey_fixtures.py: pixel (y, x) of band b of object k is k + 100 b + y / 64
// + x / 4096, 34 x 32 pixels.
const std::string folder = TEST_DATA "/survey/cutouts/";
const CutoutOptions small{.size = 24};
constexpr int row_offset = 5, column_offset = 4;  // of the central 24 x 24

float pixel(int object, int band, int y, int x)
{
    return static_cast<float>(object) + 100 * static_cast<float>(band) + static_cast<float>(y) / 64 +
           static_cast<float>(x) / 4096;
}

void expect_pixels(const Cutout& cutout, int object, const std::vector<int>& bands, float tolerance = 0)
{
    ASSERT_EQ(cutout.flux.size(), bands.size() * 24 * 24);
    for (std::size_t b = 0; b < bands.size(); ++b) {
        for (int y = 0; y < 24; ++y) {
            for (int x = 0; x < 24; ++x) {
                ASSERT_NEAR(cutout.flux[(b * 24 + y) * 24 + x],
                            pixel(object, bands[b], y + row_offset, x + column_offset), tolerance)
                    << b << ' ' << y << ' ' << x;
            }
        }
    }
}

std::map<std::int64_t, std::string> reasons(const CutoutFile& file)
{
    std::map<std::int64_t, std::string> result;
    for (std::size_t i = 0; i < file.entries().size(); ++i) {
        Cutout cutout;
        std::string reason;
        try {
            reason = file.read(i, cutout).reason;
        } catch (const DataError&) {
            reason = "unreadable file";
        }
        if (!reason.empty()) {
            result[file.entries()[i].brick.objid] = reason;
        }
    }
    return result;
}

std::string list(const std::string& text)
{
    const auto path = (std::filesystem::path(testing::TempDir()) / "astroclip-cutouts.csv").string();
    std::ofstream(path) << text;
    return path;
}

TEST(Cutouts, ReadAListWithIdsPositionsAndFluxes)
{
    const auto file = CutoutFile::open(folder + "good.csv", small);
    ASSERT_EQ(file->entries().size(), 3u);
    const auto& entry = file->entries()[2];
    EXPECT_EQ(entry.brick, (BrickId{9010, 330000, 3}));
    EXPECT_EQ(entry.object_id, pack_object_id(entry.brick));
    EXPECT_EQ(entry.dec, 0.25);
    EXPECT_EQ(entry.flux_r, 3.5f);
    EXPECT_EQ(entry.ebv, 0.03f);
    EXPECT_TRUE(std::isnan(file->entries()[1].redshift));
    EXPECT_EQ(file->entries()[0].redshift, 0.1);
}

TEST(Cutouts, AreCroppedAroundTheirCentreInTheBandsAskedFor)
{
    const auto file = CutoutFile::open(folder + "good.csv", small);
    Cutout cutout;
    ASSERT_FALSE(file->read(0, cutout));
    expect_pixels(cutout, 1, {0, 1, 2});
    ASSERT_FALSE(file->read(2, cutout));  // stored as z, r, g
    expect_pixels(cutout, 3, {0, 1, 2});
    EXPECT_FALSE(cutout.blank_edge);

    const CutoutOptions two{.bands = "zg", .size = 24};
    ASSERT_FALSE(CutoutFile::open(folder + "good.csv", two)->read(0, cutout));
    expect_pixels(cutout, 1, {2, 0});
}

TEST(Cutouts, AreRefusedByReason)
{
    const auto file = CutoutFile::open(folder + "all.csv", small);
    EXPECT_EQ(reasons(*file), (std::map<std::int64_t, std::string>{{4, "missing band"},
                                                                   {5, "wrong unit"},
                                                                   {6, "non-finite pixels"},
                                                                   {7, "wrong size"},
                                                                   {8, "no good pixels"},
                                                                   {10, "wrong pixel scale"},
                                                                   {11, "wrong position"},
                                                                   {13, "unreadable file"},
                                                                   {14, "unreadable file"}}));
    Cutout cutout;
    ASSERT_FALSE(file->read(8, cutout));
    EXPECT_TRUE(cutout.blank_edge);
}

TEST(Cutouts, MayBeStoredScaledOrCompressed)
{
    // Whole numbers of 1/4096, exact; lossless; and quantised to steps of 1/256.
    const std::vector<std::pair<std::string, float>> files{
        {"scaled.fits", 0}, {"gzip.fits", 0}, {"rice.fits", 1.01f / 512}, {"dither.fits", 1.01f / 512}};
    for (const auto& [name, tolerance] : files) {
        SCOPED_TRACE(name);
        Cutout cutout;
        ASSERT_FALSE(read_fits_cutout(folder + name, small, NAN, NAN, cutout));
        expect_pixels(cutout, 12, {0, 1, 2}, tolerance);
    }
}

TEST(Cutouts, TakeTheirPositionFromTheWcsWhereTheListHasNone)
{
    const auto path = list("OBJECT_ID,File\n77,plain.fits\n");
    const CutoutOptions options{.size = 24, .folder = folder};
    const auto file = CutoutFile::open(path, options);
    EXPECT_EQ(file->entries()[0].brick, (BrickId{0, 0, 77}));
    Cutout cutout;
    ASSERT_FALSE(file->read(0, cutout));
    EXPECT_NEAR(cutout.ra, 359.9994, 1e-9);
    EXPECT_EQ(cutout.dec, -0.25);
}

TEST(Cutouts, OfACatalogueAreFoundByAPatternOfTheirName)
{
    CutoutOptions options{.folder = "/cutouts",
                          .name_pattern = "{brickid}/{release}-{objid}-{object_id}.fits"};
    const auto dr9 = CutoutFile::open(TEST_DATA "/survey/tractor-1054p567.fits", options);
    ASSERT_EQ(dr9->entries().size(), 1u);
    EXPECT_EQ(dr9->entries()[0].file, "/cutouts/607466/9011-2657-39633345008634465.fits");
    EXPECT_EQ(dr9->entries()[0].flux_r, 5.947273f);
    const auto dr8 = CutoutFile::open(TEST_DATA "/survey/tractor-3301m002.fits.gz", options);
    ASSERT_EQ(dr8->entries().size(), 6u);
    EXPECT_EQ(dr8->entries()[2].brick, (BrickId{8000, 330248, 15}));
    EXPECT_EQ(dr8->entries()[2].flux_g, 22.287048f);
    EXPECT_NEAR(dr8->entries()[2].ra, 330.06527143, 1e-8);
    EXPECT_THROW(dr8->fingerprint(0), MissingInput);
}

TEST(Cutouts, NeedIdsAndFilesInTheirList)
{
    EXPECT_THROW(CutoutFile::open(list("ra,dec,file\n1,2,a.fits\n"), small), DataError);
    EXPECT_THROW(CutoutFile::open(list("object_id,ra,dec\n1,2,3\n"), small), DataError);
    EXPECT_THROW(CutoutFile::open(list("brickid,objid,file\n1,2,a.fits\n"), small), DataError);
    const CutoutOptions dr8{.size = 24, .release = 8000};
    EXPECT_EQ(CutoutFile::open(list("brickid,objid,file\n1,2,a.fits\n"), dr8)->entries()[0].brick,
              (BrickId{8000, 1, 2}));
    const auto bad = CutoutFile::open(list("release,brickid,objid,file\n9010,-3,2,a.fits\n"), small);
    EXPECT_EQ(bad->entries()[0].refusal.reason, "bad id");
}

TEST(Cutouts, ComeInHdf5Chunks)
{
    const auto file = CutoutFile::open(folder + "chunk.h5", small);
    ASSERT_EQ(file->entries().size(), 6u);
    const auto& entry = file->entries()[4];
    EXPECT_EQ(entry.object_id, pack_object_id({9010, 330000, 5}));
    EXPECT_EQ(entry.flux_z, 5.75f);
    EXPECT_EQ(entry.ebv, 0.05f);
    EXPECT_FLOAT_EQ(static_cast<float>(entry.redshift), 0.5f);
    EXPECT_TRUE(std::isnan(file->entries()[1].redshift));  // -99
    Cutout cutout;
    ASSERT_FALSE(file->read(4, cutout));
    expect_pixels(cutout, 5, {0, 1, 2});
    EXPECT_NEAR(cutout.ra, 0.001, 1e-9);
    EXPECT_THROW(CutoutFile::open(folder + "chunk.h5", {.bands = "gi", .size = 24}), DataError);
    EXPECT_EQ(CutoutFile::open(folder + "chunk.h5", {.size = 152})->read(0, cutout).reason, "wrong size");
}

TEST(Cutouts, AChunkWhoseValuesLieInOtherFilesIsRefused)
{
    const auto path = std::filesystem::temp_directory_path() / ("chunk-" + std::to_string(getpid()) + ".h5");
    for (const bool linked : {false, true}) {
        {
            const hdf5::Handle file(H5Fcreate(path.c_str(), H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT),
                                    H5Fclose);
            if (linked) {
                H5Lcreate_external((folder + "chunk.h5").c_str(), "images", file, "images", H5P_DEFAULT,
                                   H5P_DEFAULT);
            } else {
                const hsize_t dims[] = {1, 3, 24, 24};
                const hdf5::Handle space(H5Screate_simple(4, dims, nullptr), H5Sclose);
                const hdf5::Handle layout(H5Pcreate(H5P_DATASET_CREATE), H5Pclose);
                H5Pset_external(layout, "/etc/hostname", 0, 4 * 3 * 24 * 24);
                const hdf5::Handle images(
                    H5Dcreate2(file, "images", H5T_IEEE_F32LE, space, H5P_DEFAULT, layout, H5P_DEFAULT),
                    H5Dclose);
                ASSERT_GE(images, 0);
            }
        }
        EXPECT_THROW(CutoutFile::open(path, small), DataError);
    }
    std::filesystem::remove(path);
}

}  // namespace
}  // namespace astroclip::survey
