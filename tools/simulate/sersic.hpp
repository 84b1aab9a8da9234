#pragma once

#include <span>
#include <vector>

namespace astroclip::simulate {

// Circular Gaussians that add up to a profile: convolving them with a Gaussian PSF only adds variances.
struct MixturePart {
    double weight;  // of the light; they sum to 1
    double sigma;   // in units of the half-light radius
};

// Sérsic profile of half-light radius 1 (Sérsic 1968; b_n by Ciotti & Bertin 1999), cut at 8 radii, as a sum
// of Gaussians (multi-Gaussian expansion, Emsellem et al. 1994), fitted in light per ln r. Prepared for n =
// 0.5 … 6 in steps of 0.25; the nearest is given.
std::span<const MixturePart> sersic_mixture(double n);
double nearest_prepared_sersic(double n);

// Surface brightness at r (in half-light radii) for total flux 1 out to infinity.
double sersic_brightness(double n, double r);

}  // namespace astroclip::simulate
