#pragma once

#include <cstdint>
#include <vector>

#include "survey/arms.hpp"

namespace astroclip::survey {

// A spectrum on pixels of its own: pixel i reaches from edges[i] to edges[i + 1] (Angstrom, ascending); flux
// density and ivar in the units of Spectrum; mask: 0 is good.
struct PixelSpectrum {
    std::vector<double> edges;  // [n + 1]
    std::vector<float> flux, ivar;
    std::vector<std::uint32_t> mask;
};

// The spectrum on DESI's grid, conserving flux. The flux density is taken as constant within a pixel. With
// o_ij the length that pixel i and bin j (3600 + 0.8 j +- 0.4 Angstrom) have in common, over the pixels with
// mask 0 and ivar > 0, and O_j the sum of o_ij over i,
//
//   flux_j     = sum_i o_ij flux_i / O_j
//   1 / ivar_j = sum_i (o_ij / O_j)^2 / ivar_i
//
// so that sum_j 0.8 flux_j is the integral of the flux over the bins that are covered. ivar is that of the
// bin alone: bins that share a pixel have errors in common, which a vector of ivar cannot say (the pixels of
// SDSS are 0.83 to 2.26 Angstrom wide there, so up to four bins do). A bin of which good pixels cover less
// than half has flux 0, ivar 0 and no_data_bit; all others have mask 0.
Spectrum resample(const PixelSpectrum& pixels);

}  // namespace astroclip::survey
