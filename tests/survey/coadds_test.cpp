#include "survey/coadds.hpp"

#include <gtest/gtest.h>
#include <mpi.h>

#include <filesystem>
#include <fstream>
#include <iomanip>

#include "core/error.hpp"
#include "support/sky_files.hpp"
#include "survey/coadd_cutouts.hpp"

namespace astroclip::survey {
namespace {

namespace fs = std::filesystem;

const comm::World& world()
{
    static const comm::World instance(MPI_COMM_WORLD);
    return instance;
}

const std::string brick_name = "legacysurvey-{field}-image-{band}.fits.fz";

// Two bricks of 60 x 60 pixels on one grid, b 40 pixels east of a, so that 20 columns overlap; band z of b is
// not there. Pixels are 1 in a and 2 in b. A third one, c, is elsewhere and empty in z.
class Bricks : public testing::Test {
protected:
    void SetUp() override
    {
        folder = testing::TempDir() + "coadds-test/";
        world().barrier();
        world().on_root([&] {
            fs::remove_all(folder);
            fs::create_directories(folder + "more");
            write("a", 'g', {.crpix_x = 30.5});
            write("a", 'z', {.crpix_x = 30.5});
            write("more/b", 'g', {.crpix_x = 70.5, .pixel = [](long, long) { return 2.0F; }});
            write("c", 'g', {.ra = 10, .dec = -40});
            write("c", 'z',
                  {.ra = 10, .dec = -40, .pixel = [](long x, long) { return x < 20 ? 1.0F : 0.0F; }});
        });
    }
    void write(const std::string& brick, char band, const test::SkyFile& file) const
    {
        const auto slash = brick.find('/');
        const auto path = slash == std::string::npos ? folder : folder + brick.substr(0, slash + 1);
        file.write(path + "legacysurvey-" + brick.substr(slash + 1) + "-image-" + band + ".fits.fz");
    }
    Coadds coadds(const std::string& bands) const
    {
        const CoaddName name(brick_name, bands);
        return Coadds::make(
            world(),
            list_inputs(
                folder,
                [&](const std::string& path) { return name.parts(fs::path(path).filename()).band != 0; },
                "bricks"),
            name, 0.262);
    }
    // Reason of the object at a pixel of brick a (of c if so said), and the value in its cutout's middle.
    std::pair<std::string, float> cut(const std::string& bands, double x, double y,
                                      const std::string& of = "a") const
    {
        const auto all = coadds(bands);
        const auto sky = SkyImage(folder + "legacysurvey-" + of + "-image-g.fits.fz").wcs().to_sky({x, y});
        const auto list = folder + "list-" + std::to_string(world().rank()) + ".csv";
        std::ofstream(list) << std::setprecision(17) << "object_id,ra,dec\n5," << sky[0] << ',' << sky[1]
                            << '\n';
        const CoaddCutouts file(list, {.bands = bands, .size = 16}, all);
        Cutout cutout;
        const auto reason = file.read(0, cutout).reason;
        return {reason, reason.empty() ? cutout.flux[8 * 16 + 8] : 0};
    }
    std::string folder;
};

TEST(CoaddNames, TellFieldAndBand)
{
    const CoaddName brick(brick_name, "grz");
    EXPECT_EQ(brick.parts("legacysurvey-0959p805-image-r.fits.fz").field, "0959p805");
    EXPECT_EQ(brick.parts("legacysurvey-0959p805-image-r.fits.fz").band, 'r');
    for (const auto* other :
         {"legacysurvey-0959p805-invvar-r.fits.fz", "legacysurvey-0959p805-image-i.fits.fz",
          "legacysurvey-0959p805-image-rr.fits.fz", "legacysurvey-0959p805-image-r.fitsxfz"}) {
        EXPECT_EQ(brick.parts(other).band, 0) << other;
    }
    const auto sdss =
        CoaddName("frame-{band}-{field}.fits.bz2", "gri").parts("frame-i-001737-5-0039.fits.bz2");
    EXPECT_EQ(sdss.field, "001737-5-0039");
    EXPECT_EQ(sdss.band, 'i');
    EXPECT_EQ(CoaddName("h88 ({band})+.fits", "g").parts("h88 (g)+.fits").band, 'g');
    EXPECT_THROW(CoaddName("image.fits", "g"), ConfigError);
}

TEST_F(Bricks, AreTheSameForAllRanks)
{
    const auto all = coadds("gz");
    EXPECT_EQ(all.size(), 3u);
    for (const auto& digest : world().all_gather(all.digest())) EXPECT_EQ(digest, all.digest());
    EXPECT_EQ(all.near(150, 2, 0).size(), 2u);  // the circles around both hold it
    EXPECT_EQ(all.near(149.99, 2, 0).size(), 0u);
    EXPECT_EQ(all.near(149.99, 2, 40).size(), 2u);
    EXPECT_EQ(all.near(10, -40, 1).front()->name, "c");
}

TEST_F(Bricks, GiveAnObjectFromWhereItIsMostCentral)
{
    using Result = std::pair<std::string, float>;
    EXPECT_EQ(cut("g", 30, 30), Result("", 1));
    EXPECT_EQ(cut("g", 9.6, 30), Result("", 1));  // 10.1 pixels from a's edge, 9.9 from b's
    EXPECT_EQ(cut("g", 9.4, 30), Result("", 2));  // the other way round
    EXPECT_EQ(cut("g", -20, 30), Result("", 2));
}

TEST_F(Bricks, RefuseByReasonWhatTheyCannotGive)
{
    EXPECT_EQ(cut("g", 30, 4).first, "cut by the border");
    EXPECT_EQ(cut("g", 30, -4).first, "outside the coadds");
    EXPECT_EQ(cut("gz", 30, 30).first, "");
    EXPECT_EQ(cut("gz", 5, 30).first, "missing band");  // most central in b
    EXPECT_EQ(cut("gz", 9.6, 30).first, "");            // all of it still in a
    EXPECT_EQ(cut("gz", 12, 30, "c").first, "");
    EXPECT_EQ(cut("gz", 25, 30, "c").first, "no data in a band");
}

TEST_F(Bricks, RefuseFilesThatAreNotWhatTheyShouldBe)
{
    const auto refused = [&](const std::string& text, const std::string& file, const test::SkyFile& how) {
        world().on_root([&] { how.write(folder + file); });
        try {
            coadds("gz");
            ADD_FAILURE() << text;
        } catch (const Error& error) {
            EXPECT_EQ(error.exit_code, 65);
            EXPECT_NE(std::string(error.what()).find(file), std::string::npos) << error.what();
            EXPECT_NE(std::string(error.what()).find(text), std::string::npos) << error.what();
        }
        world().barrier();
        world().on_root([&] { fs::remove(folder + file); });
    };
    refused("BUNIT = 'mJy'", "legacysurvey-d-image-g.fits.fz", {.unit = "mJy"});
    refused("0.4000 arcsec a pixel", "legacysurvey-d-image-g.fits.fz", {.scale_arcsec = 0.4});
    refused("band g of the field 'c' is also", "more/legacysurvey-c-image-g.fits.fz", {});
}

}  // namespace
}  // namespace astroclip::survey
