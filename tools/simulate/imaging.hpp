#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "tools/simulate/galaxy.hpp"

namespace astroclip::simulate {

inline constexpr double pixel_arcsec = 0.262;

// What the imaging survey says of a galaxy: the conditions at its place and its entry in the catalogue. g, r,
// z each.
struct Imaging {
    std::array<double, 3> psf_fwhm_arcsec{};
    std::array<double, 3> pixel_noise{};  // σ of the sky, nanomaggy a pixel
    std::array<int, 3> exposures{};
    std::array<double, 3> flux{}, flux_ivar{};  // measured, nanomaggy
    std::array<double, 3> fiber_flux{};         // within 1.5 arcsec, in 1 arcsec seeing
    std::array<double, 3> psf_depth{};          // inverse variance of a point source's flux
};
Imaging observe(const Galaxy& galaxy, std::uint64_t seed);

// Part of the light of a profile that falls into a fibre of 1.5 arcsec diameter, centred on it, in the given
// seeing; a profile of radius 0 is a star. Circularised.
double fibre_fraction(const Profile& profile, double seeing_arcsec);

// The cutout [3, size, size], g r z in nanomaggy without sky, y to the north and x to the west (decreasing
// RA): the galaxy in the centre, neighbours and stars around it, the PSF (two Gaussians), noise of sky and
// photons. `realization` is another exposure of the same field.
std::vector<float> cutout(const Galaxy& galaxy, const Imaging& imaging, int size, std::uint64_t seed,
                          std::uint32_t realization = 0);

// The same without noise and neighbours.
std::vector<float> noiseless_cutout(const Galaxy& galaxy, const Imaging& imaging, int size,
                                    std::uint64_t seed);

}  // namespace astroclip::simulate
