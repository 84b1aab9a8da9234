#pragma once

#include <string>

#include "survey/cutouts.hpp"

namespace astroclip::survey {

// Bands of a store of display images: colours from 0 to 1 as a picture shows them, not fluxes.
inline const std::string display_bands = "RGB";

// Reads a colour JPEG (a Galaxy Zoo thumbnail): decoded at the coarsest of the scales 1, 1/2, 1/4, 1/8 at
// which it still has `size` pixels a side, cropped around its centre, its lowest row first as in a FITS
// image. `ra`, `dec` as listed, or NaN. Throws DataError if it is no JPEG or damaged, MissingInput if it is
// not there.
Refusal read_display_image(const std::string& path, int size, double ra, double dec, Cutout& cutout);

}  // namespace astroclip::survey
