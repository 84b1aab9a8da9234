#include "survey/healpix.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numbers>

#include "core/error.hpp"
#include "survey/sky.hpp"

namespace astroclip::survey {
namespace {

// Cell of the rotated plane in which the twelve faces are unit squares: `down` grows to the south-east, `up`
// to the north-east, both counted in pixels.
struct Cell {
    std::int64_t down, up;
};

Cell equatorial_cell(double turns, double z, double side)
{
    const auto middle = turns + 0.5;
    return {static_cast<std::int64_t>(side * middle - side * 0.75 * z),
            static_cast<std::int64_t>(side * middle + side * 0.75 * z)};
}

// Within a polar cap, the distance from the pole comes from cos(dec), which keeps its digits where 1 - |z|
// loses them.
Cell polar_cell(double turns, double z, double cos_dec, std::int64_t side)
{
    const auto quarter = std::min<std::int64_t>(static_cast<std::int64_t>(turns), 3);
    const auto along = turns - static_cast<double>(quarter);
    const auto reach = static_cast<double>(side) * cos_dec * std::sqrt(3.0 / (1.0 + std::abs(z)));
    const auto near = std::min(static_cast<std::int64_t>(along * reach), side - 1);
    const auto far = std::min(static_cast<std::int64_t>((1.0 - along) * reach), side - 1);
    const Cell north{quarter * side + near, (quarter + 2) * side - 1 - far};
    return z > 0 ? north : Cell{north.up, north.down};
}

// Spreads 32 bits to the even places of 64.
std::uint64_t spread_bits(std::uint64_t x)
{
    x = (x | (x << 16)) & 0x0000ffff0000ffff;
    x = (x | (x << 8)) & 0x00ff00ff00ff00ff;
    x = (x | (x << 4)) & 0x0f0f0f0f0f0f0f0f;
    x = (x | (x << 2)) & 0x3333333333333333;
    return (x | (x << 1)) & 0x5555555555555555;
}

std::int64_t nested_number(const Cell& cell, int order)
{
    const auto side = std::int64_t{1} << order;
    const auto down = cell.down >> order, up = cell.up >> order;
    const auto face = down == up ? 4 + down % 4 : down < up ? down : up + 8;
    const auto x = static_cast<std::uint64_t>(cell.up & (side - 1));
    const auto y = static_cast<std::uint64_t>(side - 1 - (cell.down & (side - 1)));
    return (face << (2 * order)) + static_cast<std::int64_t>(spread_bits(x) | (spread_bits(y) << 1));
}

}  // namespace

std::int64_t healpix_nested(double ra_deg, double dec_deg, int order)
{
    if (!is_position(ra_deg, dec_deg) || order < 0 || order > 29) {
        throw DataError("position",
                        fmt::format("ra {} dec {} order {} has no HEALPix pixel", ra_deg, dec_deg, order));
    }
    constexpr double degree = std::numbers::pi / 180;
    const auto turns = wrapped_ra(ra_deg) / 90.0;
    const auto z = std::sin(dec_deg * degree);
    const auto side = std::int64_t{1} << order;
    return nested_number(3 * std::abs(z) <= 2 ? equatorial_cell(turns, z, static_cast<double>(side))
                                              : polar_cell(turns, z, std::cos(dec_deg * degree), side),
                         order);
}

}  // namespace astroclip::survey
