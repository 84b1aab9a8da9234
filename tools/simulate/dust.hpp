#pragma once

namespace astroclip::simulate {

// A(λ)/A(V) of starburst galaxies, rest frame (Calzetti et al. 2000, ApJ 533, 682, eq. 4; R_V = 4.05).
double calzetti(double wavelength_angstrom);

// A(λ)/E(B−V) of the Milky Way (Cardelli, Clayton & Mathis 1989, ApJ 345, 245; R_V = 3.1), lowered to the
// 0.86 of it that stars of the SDSS ask for (Schlafly & Finkbeiner 2011): 3.2, 2.2, 1.2 in g, r, z, as the
// Legacy Surveys have it.
double milky_way(double wavelength_angstrom);

}  // namespace astroclip::simulate
