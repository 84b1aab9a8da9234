#include "survey/healpix.hpp"

#include <gtest/gtest.h>

#include <array>
#include <cmath>

#include "core/error.hpp"

namespace astroclip::survey {
namespace {

struct Known {
    double ra, dec;
    std::array<std::int64_t, 3> pixel;  // orders 0, 5, 29
};

// Made with healpy 1.20: ang2pix(2^order, ra, dec, nest=True, lonlat=True).
constexpr std::array<Known, 8> known{{{10.6847, 41.269, {0, 677, 190633880095749920}},
                                      {0.1, -0.2, {4, 4351, 1224975832022241609}},
                                      {180, -45, {10, 10914, 3072205542941819018}},
                                      {359.9, 89.9, {3, 4095, 1152919296277284914}},
                                      {266.4168, -29.0078, {7, 7207, 2028740913184819897}},
                                      {45, 90, {0, 1023, 288230376151711743}},
                                      {123.456, -89.99, {9, 9216, 2594073395139628080}},
                                      {0, 41.8103148957786, {0, 682, 192153584101141162}}}};

TEST(Healpix, GivesThePixelsOfTheReferenceLibrary)
{
    constexpr std::array<int, 3> orders{0, 5, 29};
    for (const auto& each : known) {
        for (std::size_t i = 0; i < orders.size(); ++i) {
            EXPECT_EQ(healpix_nested(each.ra, each.dec, orders[i]), each.pixel[i])
                << each.ra << " " << each.dec;
        }
    }
}

TEST(Healpix, PixelOfALowerOrderHoldsThatOfAHigher)
{
    for (int i = 0; i < 2000; ++i) {
        const auto ra = std::fmod(i * 137.507764, 360.0),
                   dec = 180.0 / M_PI * std::asin(2.0 * (i + 0.5) / 2000 - 1);
        const auto fine = healpix_nested(ra, dec, 29);
        for (int order = 0; order < 29; ++order) {
            ASSERT_EQ(healpix_nested(ra, dec, order), fine >> (2 * (29 - order)))
                << ra << " " << dec << " order " << order;
        }
    }
}

TEST(Healpix, TakesAnyTurnOfRightAscensionAndRefusesWhatIsNoPosition)
{
    EXPECT_EQ(healpix_nested(370, 5), healpix_nested(10, 5));
    EXPECT_THROW(healpix_nested(10, 90.5), DataError);
    EXPECT_THROW(healpix_nested(NAN, 0), DataError);
}

}  // namespace
}  // namespace astroclip::survey
