#pragma once

#include <memory>
#include <string>

#include "survey/cutouts.hpp"

namespace astroclip::survey {

// Cutouts as the Multimodal Universe has them (github.com/MultimodalUniverse), sets legacysurvey and
// ssl_legacysurvey: HDF5, one file a HEALPix cell, one row an object,
//   image_array [n, bands, H, W] float32, nanomaggy: 160 x 160 pixels in g, r, i, z, or 152 x 152 in g, r, z
//   image_band [n, bands], texts that end with the band's letter (des-g), the same in every row; without it
//     three planes are g, r, z and four g, r, i, z
//   image_scale [n, bands], arcsec a pixel, optional: 1 % off is refused
//   RELEASE, BRICKID, OBJID, or object_id if it holds numbers; RA, DEC; FLUX_G …, EBV, z_spec optional
//   (hdf5_images.hpp; names whatever their case)
// Cropped around the centre. image_ivar, image_mask and image_psf_fwhm are not read. Packed by LZF or not.
std::unique_ptr<CutoutFile> open_multimodal_universe_images(const std::string& path,
                                                            const CutoutOptions& options);

// Whether the HDF5 file is of this form; false if it cannot be opened.
bool holds_multimodal_universe_images(const std::string& path);

}  // namespace astroclip::survey
