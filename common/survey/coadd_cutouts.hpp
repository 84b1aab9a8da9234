#pragma once

#include <string>
#include <utility>
#include <vector>

#include "survey/coadds.hpp"
#include "survey/cutouts.hpp"

namespace astroclip::survey {

// Cutouts at the positions of a catalogue (CSV, FITS or HDF5 table; columns as in legacy_survey.hpp,
// positions required, no file) from coadds. Rows are those of the catalogue.
//
// An object belongs to the field in which it is most central: whose image of the first band wanted (or, where
// there is none, of the next) has its edge farthest from it, in pixels; of equals the first by name. The grid
// of the cutout is that of this field's image of the first band wanted, shifted by whole pixels so that the
// middle of the cutout is within half a pixel of the object in x and y: north is where it is in that image.
// Each band is filled from the object's own field, and where that has ended, from the others in the order of
// their centrality: seams are the borders of images, nothing is averaged (SkyImage::fill says what is copied
// and what resampled).
//
// Refused by reason:
//   no position (damage)
//   outside the coadds   no image of the input holds the position
//   missing band (damage)   the object's field has no file of a band wanted
//   cut by the border   pixels of the cutout are on no image of a band
//   no data in a band   fewer than `min_coverage` of the pixels of a band are other than 0
//   non-finite pixels (damage)
class CoaddCutouts : public CutoutFile {
public:
    // `coadds` must outlive this; made with the bands of `options`.
    CoaddCutouts(const std::string& path, const CutoutOptions& options, const Coadds& coadds);
    std::string fingerprint(std::size_t) const override { return ""; }  // Coadds::digest has it
    Refusal read(std::size_t i, Cutout& cutout) const override;

private:
    struct Candidate {
        const Coadds::Field* field;
        double depth;  // pixels from the position to the nearest edge; negative outside
    };
    std::vector<Candidate> candidates(double ra, double dec) const;  // most central first
    PixelBox box_around(const SkyImage& reference, double ra, double dec) const;
    Refusal check_coverage(const Cutout& cutout) const;

    CutoutOptions options_;
    const Coadds& coadds_;
};

}  // namespace astroclip::survey
