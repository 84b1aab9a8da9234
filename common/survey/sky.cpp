#include "survey/sky.hpp"

#include <cmath>
#include <numbers>

namespace astroclip::survey {
namespace {

constexpr double radian = std::numbers::pi / 180;
constexpr double arcsec = radian / 3600;

}  // namespace

UnitVector unit_vector(double ra_deg, double dec_deg)
{
    const double ra = ra_deg * radian, dec = dec_deg * radian;
    return {std::cos(dec) * std::cos(ra), std::cos(dec) * std::sin(ra), std::sin(dec)};
}

double separation_arcsec(const UnitVector& a, const UnitVector& b)
{
    const double x = a[1] * b[2] - a[2] * b[1], y = a[2] * b[0] - a[0] * b[2], z = a[0] * b[1] - a[1] * b[0];
    return std::atan2(std::hypot(x, y, z), a[0] * b[0] + a[1] * b[1] + a[2] * b[2]) / arcsec;
}

double separation_arcsec(double ra1_deg, double dec1_deg, double ra2_deg, double dec2_deg)
{
    return separation_arcsec(unit_vector(ra1_deg, dec1_deg), unit_vector(ra2_deg, dec2_deg));
}

double chord(double separation) { return 2 * std::sin(separation * arcsec / 2); }

double wrapped_ra(double ra_deg)
{
    const double ra = std::fmod(ra_deg, 360);
    const double positive = ra < 0 ? ra + 360 : ra;
    return positive < 360 ? positive : 0;  // -1e-17 + 360 is 360
}

bool is_position(double ra_deg, double dec_deg) { return std::isfinite(ra_deg) && std::abs(dec_deg) <= 90; }

}  // namespace astroclip::survey
