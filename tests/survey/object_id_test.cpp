#include "survey/object_id.hpp"

#include <gtest/gtest.h>

#include <string>

#include "core/error.hpp"

namespace astroclip::survey {
namespace {

// TARGETIDs and brick columns of real DESI files: coadd-4-80613 and coadd-5-169.
TEST(ObjectId, PacksTheBricksOfRealTargetsToTheirTargetid)
{
    EXPECT_EQ(pack_object_id({9011, 607466, 2657}), 39633345008634465);
    EXPECT_EQ(pack_object_id({9011, 596104, 1652}), 39633297352951412);
    EXPECT_EQ(pack_object_id({9011, 596966, 2783}), 39633300968442591);
}

TEST(ObjectId, UnpacksWhatItPacked)
{
    for (const BrickId id :
         {BrickId{9010, 1, 0}, BrickId{0, 0, 7}, BrickId{65535, (1 << 20) - 1, (1 << 22) - 1}}) {
        EXPECT_EQ(unpack_object_id(pack_object_id(id)), id);
    }
}

TEST(ObjectId, RefusesNumbersThatDoNotFit)
{
    EXPECT_EQ(pack_object_id({-1, 5, 5}), -1);
    EXPECT_EQ(pack_object_id({1, 1 << 20, 5}), -1);
    EXPECT_EQ(pack_object_id({1, 5, 1 << 22}), -1);
    EXPECT_EQ(unpack_object_id(616094145466860255), BrickId{});  // a sky fibre's id: bit 59
    EXPECT_EQ(unpack_object_id(-1695072), BrickId{});
}

TEST(ObjectId, GivesSdssSpectraIdsThatAreNeitherTargetidsNorAnonymous)
{
    const auto id = sdss_object_id(10000, 57346, 3);  // SPECOBJID 11259000016306413568, beyond int64
    EXPECT_EQ(id >> 28 & 0xffff, 10000);
    EXPECT_EQ(id >> 12 & 0xffff, 57346);
    EXPECT_EQ(id & 0xfff, 3);
    EXPECT_FALSE(is_anonymous(id));
    EXPECT_FALSE(is_targetid(id));
    EXPECT_TRUE(is_targetid(39633345008634465));
    EXPECT_TRUE(is_targetid(2305843037374645262));  // of Gaia: bit 61
    EXPECT_FALSE(is_targetid(-5));
    EXPECT_EQ(unpack_object_id(id), BrickId{});
    EXPECT_EQ(sdss_object_id(1 << 16, 57346, 3), -1);
    EXPECT_EQ(sdss_object_id(266, -1, 3), -1);
}

TEST(ObjectId, NamesAnonymousRowsApartFromAllPackedIds)
{
    const auto id = anonymous_object_id("test_coadd.fits", 3);
    EXPECT_TRUE(is_anonymous(id));
    EXPECT_FALSE(is_targetid(id));
    for (std::int64_t i = 0; i < 100; ++i) {
        EXPECT_TRUE(is_anonymous(anonymous_object_id(std::to_string(i) + ".fits", i)));
    }
    EXPECT_GT(id, pack_object_id({65535, (1 << 20) - 1, (1 << 22) - 1}));
    EXPECT_NE(id, anonymous_object_id("test_coadd.fits", 4));
    EXPECT_NE(id, anonymous_object_id("other.fits", 3));
    EXPECT_EQ(id, anonymous_object_id("test_coadd.fits", 3));
    EXPECT_FALSE(is_anonymous(39633345008634465));
    EXPECT_FALSE(is_anonymous(-5));
    EXPECT_THROW(anonymous_object_id("x", 1 << 22), DataError);
}

}  // namespace
}  // namespace astroclip::survey
