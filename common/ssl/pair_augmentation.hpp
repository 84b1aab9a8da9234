#pragma once

#include <cstdint>
#include <string>

#include "config/options.hpp"
#include "data/batches.hpp"

namespace astroclip::ssl {

// What alignment changes in a pair before the encoders see it. The published cross-attention model changes
// nothing; with encoders that are trained too, some thousand pairs are soon known by heart without.
struct PairAugmentation {
    // Images turned over at random along rows and columns: none, train, or always (in validation too, as the
    // workshop's code does).
    std::string flips = "none";
    int shift = 0;              // the crop's centre moves by up to this in training, each way [pixel]
    double spectrum_noise = 0;  // noise added in training, in units of each bin's own deviation 1/sqrt(ivar)
    // What changes image and spectrum of a pair alike, in training: a galaxy like it, brighter or fainter by
    // up to `brightness`, and in each band by up to `colour` more [mag]. So thousands of pairs teach that
    // flux and colours must agree, not which galaxies there were.
    double brightness = 0, colour = 0;

    bool changes_anything() const
    {
        return flips != "none" || shift > 0 || spectrum_noise > 0 || changes_flux();
    }
    bool changes_flux() const { return brightness > 0 || colour > 0; }
};
void bind(config::Section options, PairAugmentation& config);

// The batch as the encoders shall see it in a step of training, or (`training` false) of validation. All
// draws are functions of (seed, step, object id). Images become smaller by 2·shift pixels each way when they
// are shifted. Throws DataError if less than `crop` pixels would be left.
//
// Brightness and colour: offsets of the bands g, r and z [mag], each brightness·u + colour·v of draws u, of
// the pair, and v, of the band, from -1 to 1. The spectrum's offset is the parabola in wavelength through
// them at the bands' centres (Flaugher et al. 2015: 4730, 6420, 9260 Angstrom). Images: g, r, z fluxes.
data::Batch augmented(data::Batch batch, const PairAugmentation& config, std::int64_t crop,
                      std::uint64_t seed, std::uint32_t step, bool training);

}  // namespace astroclip::ssl
