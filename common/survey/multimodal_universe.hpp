#pragma once

#include <memory>
#include <string>

#include "survey/spectra.hpp"

namespace astroclip::survey {

// DESI spectra as the Multimodal Universe has them (github.com/MultimodalUniverse): HDF5, one row an object,
//   spectrum_flux, spectrum_ivar, spectrum_lambda [n, 7781], on DESI's grid to the rounding of float32
//   spectrum_mask [n, 7781] of truth values, optional: true is bad (mask 1 here)
//   object_id: TARGETID, integers or texts;  ra, dec: degrees
//   optional: Z, ZERR, ZWARN, SPECTYPE, OBJTYPE, COADD_FIBERSTATUS, RELEASE, BRICKID, BRICK_OBJID, EBV and
//   FLUX_G, _R, _Z (nanomaggy; -99 is none)
// Names whatever their case. The arms are already one; the arm rule decides what masked bins hold.
std::unique_ptr<SpectrumFile> open_multimodal_universe(const std::string& path,
                                                       const SpectrumOptions& options);

// Whether the HDF5 file has spectra, or cannot be opened (which reading it will tell).
bool may_hold_spectra(const std::string& path);

}  // namespace astroclip::survey
