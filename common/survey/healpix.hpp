#pragma once

#include <cstdint>

namespace astroclip::survey {

// Number of the HEALPix pixel that holds a direction (degrees ICRS), nested scheme, 12·4^order pixels, order
// 0 to 29 (Górski et al. 2005, ApJ 622, 759). Throws DataError if it is not a position.
std::int64_t healpix_nested(double ra_deg, double dec_deg, int order = 29);

}  // namespace astroclip::survey
