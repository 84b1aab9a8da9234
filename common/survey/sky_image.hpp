#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "survey/fits.hpp"
#include "survey/wcs.hpp"

namespace astroclip::survey {

// The unit is nanomaggy a pixel, whatever its spelling: nanomaggy, nanomaggies, nmgy.
bool is_nanomaggy(std::string unit);

// A square of pixels of an image's grid, which may reach beyond the image: columns x to x + size - 1, rows y
// to y + size - 1.
struct PixelBox {
    std::int64_t x = 0, y = 0;
    int size = 0;
};

// A box being filled from one image after another: pixels that one has given are not touched by the next.
struct Canvas {
    explicit Canvas(int size);
    std::vector<float> pixels;          // [size, size], nanomaggy a pixel of the box's grid
    std::vector<std::uint8_t> covered;  // 1 where an image has given a pixel
    std::int64_t missing;               // pixels that none has given
};

// One image of the sky in nanomaggy: the first image of a FITS file, tile-compressed or not, with its WCS.
// Pixels stay in the file until they are asked for.
class SkyImage {
public:
    // DataError names what is wrong: no image of two axes, no WCS, another unit than nanomaggy, an unknown
    // one.
    explicit SkyImage(const std::string& path);

    const std::string& path() const { return file_.path(); }
    std::int64_t height() const { return shape_[0]; }
    std::int64_t width() const { return shape_[1]; }
    const Wcs& wcs() const { return wcs_; }
    void verify_checksum() const { file_.verify_checksum(hdu_); }

    // Pixels from the nearest edge of the image to a pixel position; negative outside, NaN as the position
    // is.
    double depth(double x, double y) const;

    // Fills what this image covers of `box`, a box of the grid of `reference`.
    //
    // Where the two grids are the same but for a shift by whole pixels, within 0.01 pixel over the box,
    // pixels are copied. Else they are resampled: Lanczos of 3 lobes in each axis, weights normalised to 1,
    // times the ratio of the areas of a pixel of `reference` and one of this image, so that the flux of a
    // source in nanomaggies is kept. (For pixels of nearly one size; where those of `reference` are much
    // larger, light between the points is missed.) Pixels that are 0 or not finite have no data: they take no
    // part, and what lies on one is a copy of it. A resampled pixel is covered if all 6 x 6 pixels lie within
    // the image.
    void fill(Canvas& canvas, const SkyImage& reference, const PixelBox& box) const;

private:
    void copy(Canvas& canvas, const PixelBox& box) const;  // of this image's own grid
    void resample(Canvas& canvas, const SkyImage& reference, const PixelBox& box) const;

    fits::File file_;
    int hdu_;
    std::vector<std::int64_t> shape_;  // [height, width]
    Wcs wcs_;
};

}  // namespace astroclip::survey
