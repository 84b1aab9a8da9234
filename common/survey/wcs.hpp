#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "survey/fits.hpp"

struct wcsprm;

namespace astroclip::survey {

// The celestial coordinates of a FITS image, by WCSLIB: every projection, and the distortions SIP and TPV.
// Pixels are counted from 0: (0, 0) is the centre of the first pixel, x along the fastest axis, so that the
// image covers -0.5 to width - 0.5. Positions are degrees ICRS; J2000 of FK5 is taken as such (0.02 arcsec).
// Points stand one after another, x0, y0, x1, y1, … or ra0, dec0, ra1, dec1, …
class Wcs {
public:
    // That of an image; nothing if its header has none. DataError if there is one that is broken or in other
    // coordinates than RA and Dec of J2000.
    static std::optional<Wcs> of(const fits::File& file, int hdu);

    std::vector<double> to_sky(std::vector<double> pixels) const;      // NaN: outside the projection
    std::vector<double> to_pixels(std::vector<double> degrees) const;  // NaN likewise
    double pixel_scale_arcsec(double x, double y) const;  // square root of the pixel's area on the sky

private:
    explicit Wcs(std::shared_ptr<wcsprm> parameters) : parameters_(std::move(parameters)) {}
    std::shared_ptr<wcsprm> parameters_;
};

}  // namespace astroclip::survey
