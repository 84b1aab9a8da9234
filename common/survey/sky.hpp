#pragma once

#include <array>

// Directions on the sky: degrees ICRS, right ascension in any turn (370 is 10).
namespace astroclip::survey {

using UnitVector = std::array<double, 3>;

UnitVector unit_vector(double ra_deg, double dec_deg);

// Angle between two directions. From their vectors by atan2(|a x b|, a.b): as exact for a milliarcsecond as
// for 180 degrees.
double separation_arcsec(const UnitVector& a, const UnitVector& b);
double separation_arcsec(double ra1_deg, double dec1_deg, double ra2_deg, double dec2_deg);

// Length of the chord between two unit vectors that are that far apart.
double chord(double arcsec);

double wrapped_ra(double ra_deg);                 // in [0, 360)
bool is_position(double ra_deg, double dec_deg);  // finite, |dec| <= 90

}  // namespace astroclip::survey
