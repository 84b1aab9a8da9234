#pragma once

#include <memory>
#include <string>
#include <vector>

#include "survey/fits.hpp"
#include "survey/spectra.hpp"

// Spectra of the Sloan Digital Sky Survey. All have the same comb of pixels, log10(wavelength) = k 1e-4 with
// whole k at the centres, in vacuum and the observed frame, corrected to the Sun's velocity (DESI: to that of
// the barycentre, which differs by less than a thousandth of a bin); flux in 1e-17 erg s-1 cm-2 Angstrom-1.
// They are put on DESI's grid by resample().
namespace astroclip::survey {

// spec-PLATE-MJD-FIBRE.fits of SDSS and BOSS, lite or full (which appends the exposures; they are not read):
// HDU COADD with flux, loglam and ivar a pixel, and HDU SPECOBJ (SDSS) or SPALL (BOSS) with one row about the
// object. Pixels that the reduction rejected have ivar 0; the bits of and_mask are warnings beside, and are
// not read. A spectrum of a sky fibre has a class and a redshift like any other: ZWARNING or OBJTYPE tell.
std::unique_ptr<SpectrumFile> open_sdss(std::unique_ptr<fits::File> file);

// Stacks of MaNGA spaxels: images WAVE [n], FLUX, IVAR, MASK [rows, n] (flux a spaxel) and Z [rows], without
// ids or positions. A pixel is good where MASK is 0.
std::unique_ptr<SpectrumFile> open_manga(std::unique_ptr<fits::File> file, const SpectrumOptions& options);

// [n + 1] edges, Angstrom, of pixels at these log10(wavelength / Angstrom), which may be rounded to float32.
// DataError naming `path` if they are not a stretch of the comb.
std::vector<double> sdss_pixel_edges(const std::vector<double>& log_wavelength, const std::string& path);

}  // namespace astroclip::survey
