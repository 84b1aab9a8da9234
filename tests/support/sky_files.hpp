#pragma once

#include <fitsio.h>

#include <cmath>
#include <functional>
#include <numbers>
#include <stdexcept>
#include <string>
#include <vector>

// FITS images of the sky, written as a test wants them.
namespace astroclip::test {

struct SkyFile {
    long width = 60, height = 60;
    double ra = 150, dec = 2;               // of the reference pixel
    double crpix_x = 30.5, crpix_y = 30.5;  // counted from 1
    double scale_arcsec = 0.262, turn_deg = 0;
    std::string unit = "nanomaggy", projection = "TAN";                            // "": no such cards
    std::function<float(long x, long y)> pixel = [](long, long) { return 1.0F; };  // counted from 0

    void write(const std::string& path) const
    {
        fitsfile* file = nullptr;
        int status = 0;
        fits_create_diskfile(&file, path.c_str(), &status);
        long axes[] = {width, height};
        fits_create_img(file, FLOAT_IMG, 2, axes, &status);
        const auto number = [&](const char* key, double value) {
            fits_write_key_dbl(file, key, value, -15, nullptr, &status);
        };
        if (!projection.empty()) {
            fits_write_key_str(file, "CTYPE1", ("RA---" + projection).c_str(), nullptr, &status);
            fits_write_key_str(file, "CTYPE2", ("DEC--" + projection).c_str(), nullptr, &status);
        }
        if (!unit.empty()) fits_write_key_str(file, "BUNIT", unit.c_str(), nullptr, &status);
        const double step = scale_arcsec / 3600, turn = turn_deg * std::numbers::pi / 180;
        number("CRVAL1", ra);
        number("CRVAL2", dec);
        number("CRPIX1", crpix_x);
        number("CRPIX2", crpix_y);
        number("CD1_1", -step * std::cos(turn));
        number("CD1_2", step * std::sin(turn));
        number("CD2_1", step * std::sin(turn));
        number("CD2_2", step * std::cos(turn));
        std::vector<float> pixels;
        for (long y = 0; y < height; ++y) {
            for (long x = 0; x < width; ++x) pixels.push_back(pixel(x, y));
        }
        fits_write_img(file, TFLOAT, 1, width * height, pixels.data(), &status);
        fits_close_file(file, &status);
        if (status) throw std::runtime_error("writing " + path);
    }
};

}  // namespace astroclip::test
