#pragma once

#include <memory>
#include <string>

#include "survey/cutouts.hpp"
#include "survey/table.hpp"

// The Legacy Surveys' two forms of cutouts.
namespace astroclip::survey {

// A list of FITS cutouts as the survey's cutout service makes them: one image [bands, H, W] in nanomaggy,
// header BANDS, TAN WCS. The list is CSV or FITS, names whatever their case, a Tractor or sweep catalogue
// (DR8 and DR9) among others:
//   object_id (or targetid), or release, brickid, objid (or brick_objid)
//   ra, dec (or target_ra, target_dec); optional where the cutout has a WCS
//   file (or path, filename, cutout), or a name pattern with {object_id} {release} {brickid} {objid}
//   flux_g, flux_r, flux_z, ebv, redshift (or z_spec): optional;  brick_primary: optional, false is
//   refused
// With the bands RGB the list names colour JPEGs instead (display_image.hpp).
class CutoutList : public CutoutFile {
public:
    CutoutList(const std::string& path, const CutoutOptions& options);
    std::string fingerprint(std::size_t i) const override;
    Refusal read(std::size_t i, Cutout& cutout) const override;

private:
    CutoutOptions options_;
};

// The objects of such a list or catalogue, without their files.
std::vector<CutoutEntry> read_catalogue(const Table& table, const CutoutOptions& options);

// Reads one FITS cutout, cropped around its centre. `ra`, `dec`: where it should be, or NaN.
Refusal read_fits_cutout(const std::string& path, const CutoutOptions& options, double ra, double dec,
                         Cutout& cutout);

// Stein et al.'s HDF5 chunks: images [n, 3, 152, 152] in bands g, r, z, nanomaggy, with columns release,
// brickid, objid (or object_id), ra, dec and optional flux [n, >= 3] or flux_g …, ebv, z_spec.
std::unique_ptr<CutoutFile> open_stein_chunk(const std::string& path, const CutoutOptions& options);

}  // namespace astroclip::survey
