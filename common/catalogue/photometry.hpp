#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <span>
#include <vector>

#include "comm/world.hpp"

// The baseline of broad-band photometry: what three magnitudes know without any learning.
namespace astroclip::catalogue {

// AB fluxes in g, r, z, nanomaggy, that spectra would have through filters of DECam's widths (trapezia, for
// comparisons among themselves): ∫ f λ T dλ / ∫ c T/λ dλ over the bins with inverse variance.
//
//   flux, ivar  [n, L], 1e-17 erg s-1 cm-2 Angstrom-1 and its inverse square; wavelength  L, Angstrom
//   return      [n, 3] float64; NaN for a band without good bins
at::Tensor synthetic_flux(const at::Tensor& flux, const at::Tensor& ivar,
                          const std::vector<double>& wavelength);

// 22.5 - 2.5 log10 of fluxes in nanomaggy, float64; fluxes below 0.01 (and negative ones) count as 0.01,
// magnitude 27.5.
at::Tensor magnitudes(const at::Tensor& flux);

// How two measurements of the same galaxies' magnitudes differ: in (r, g - r, r - z), the median difference
// (zero points, light lost beside the fibre) and its spread, 1.4826 · median absolute deviation.
struct ColourScale {
    at::Tensor offset, spread;  // [3] float64
    // one, other: [n, 3] magnitudes of the same galaxies; NaN is left out
    static ColourScale of(const at::Tensor& one, const at::Tensor& other);
};

// The place, from 1, of each query's true partner when the catalogue is ordered by its distance in those
// three numbers, each divided by its spread (what lacks one, NaN, comes last). Query i's partner is row i of
// the catalogue. The queries are shared out among the ranks. Collective.
//
//   queries, catalogue [n, 3] magnitudes; the queries' minus the catalogue's is what `scale` describes
std::vector<std::int64_t> photometric_places(const comm::World& world, const at::Tensor& queries,
                                             const at::Tensor& catalogue, const ColourScale& scale);

}  // namespace astroclip::catalogue
