#pragma once

#include <cstdint>
#include <list>
#include <memory>
#include <regex>
#include <string>
#include <vector>

#include "comm/world.hpp"
#include "survey/inputs.hpp"
#include "survey/sky.hpp"
#include "survey/sky_image.hpp"

namespace astroclip::survey {

// How the images of a survey are named: legacysurvey-{field}-image-{band}.fits.fz. {band} stands for one of
// the bands wanted; {field} for what tells fields (bricks, frames) apart, and may be left out if there is
// one.
class CoaddName {
public:
    CoaddName(std::string pattern, std::string bands);  // ConfigError if it has no {band}

    struct Parts {
        std::string field;
        char band = 0;  // 0: not such a name
    };
    Parts parts(const std::string& file_name) const;
    const std::string& pattern() const { return pattern_; }
    const std::string& bands() const { return bands_; }

private:
    std::string pattern_, bands_;
    std::regex expression_;
    std::size_t field_group_ = 0, band_group_ = 1;  // of the expression; 0: none
};

// Images of the sky that cutouts are made of: fields, each with one file a band,
//
//   Legacy Surveys' brick coadds: 3600 x 3600 pixels, TAN, tile-compressed, the bands of a brick on one grid,
//     neighbours overlap by 43 arcsec and have tangent points of their own
//   frames, such as those of SDSS: any projection, gzipped or bzipped too, every band on a grid of its own
//
// FITS, one image of two axes, nanomaggy (BUNIT must say so), a WCS in RA and Dec, pixels within 1 % of the
// scale of the cutouts. All ranks hold the list of fields; the files are read where they are needed, and a
// dozen of them are open at a time.
class Coadds {
public:
    struct Field {
        std::string name;
        std::vector<std::string>
            files;  // one a band, in the order of the bands wanted; "" where there is none
    };

    // Collective. Each rank opens its share of the files. DataError for a file that cannot be read, does not
    // match its checksum, has another unit or pixel scale or no WCS, for two files of one field and band, and
    // for a file that is not named by the pattern.
    static Coadds make(const comm::World& world, const std::vector<InputFile>& files, const CoaddName& name,
                       double pixel_scale_arcsec);

    // The fields that come within `reach_arcsec` of a position by the circles around them: some of them may
    // not hold it. By name.
    std::vector<const Field*> near(double ra, double dec, double reach_arcsec) const;
    std::shared_ptr<const SkyImage> image(const std::string& file) const;  // DataError, MissingInput

    std::size_t size() const { return fields_.size(); }
    const std::string& digest() const { return digest_; }  // of names and contents

private:
    struct Circle {
        UnitVector centre;
        double dec, radius_arcsec;
        std::size_t field;
    };
    void list_fields(const std::vector<InputFile>& files, const std::vector<CoaddName::Parts>& parts,
                     const std::string& bands);

    std::vector<Field> fields_;
    std::vector<Circle> circles_;  // around each image, by declination
    double largest_radius_ = 0;
    std::string digest_;
    mutable std::list<std::shared_ptr<const SkyImage>> open_;  // the latest first
};

}  // namespace astroclip::survey
