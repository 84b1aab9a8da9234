#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "survey/object_id.hpp"

namespace astroclip::survey {

// Why an object is not taken. `damage` says that something is broken, as opposed to not wanted.
struct Refusal {
    std::string reason;  // short and countable; "": none
    bool damage = false;
    std::string detail{};  // for people: numbers found
    explicit operator bool() const { return !reason.empty(); }
};

// One object of a list or chunk of cutouts.
struct CutoutEntry {
    std::int64_t object_id = -1;
    BrickId brick;
    double ra, dec;                     // degrees ICRS; NaN if the list does not say
    float flux_g, flux_r, flux_z, ebv;  // nanomaggy, mag; NaN if not there
    double redshift;                    // NaN if not there
    std::string file;                   // of a list: the cutout's path
    Refusal refusal;                    // known from the list alone
    CutoutEntry();
};

struct CutoutOptions {
    std::string bands = "grz";          // wanted, in this order
    int size = 152;                     // pixels a side, cropped around the centre
    double pixel_scale_arcsec = 0.262;  // 1 % off is refused
    double max_offset_arcsec = 2;       // listed position to the centre of the cutout's WCS; 0: any
    std::string folder{};               // that relative paths of a list start from; "": the list's own
    std::string name_pattern{};         // for a list without a file column: "{object_id}.fits"
    int release = 0;                    // of a list without that column; 0: the column must be there
    double min_coverage = 0.5;          // of coadds: share of pixels of each band that must not be 0
};

// flux [bands, size, size] float32, nanomaggy, row-major, y from south to north as in the file.
struct Cutout {
    std::vector<float> flux;
    double ra, dec;           // of the entry, or else of the cutout's WCS
    bool blank_edge = false;  // an outermost row or column that is all 0 in some band
};

// The pixels' own defects: not finite, or all 0. Sets blank_edge.
Refusal judge_pixels(Cutout& cutout, int bands, int size);

// A file that lists objects and gives their pixels.
class CutoutFile {
public:
    virtual ~CutoutFile() = default;
    // HDF5 (by the ending .h5 or .hdf5), of the Multimodal Universe or a chunk of Stein et al. by what it
    // holds; or else a list (CSV or FITS table).
    static std::unique_ptr<CutoutFile> open(const std::string& path, const CutoutOptions& options);

    const std::vector<CutoutEntry>& entries() const { return entries_; }
    // Content id of what entry i has beside the list itself ("" for a chunk). MissingInput if it is not
    // there.
    virtual std::string fingerprint(std::size_t i) const = 0;
    // Fills `cutout`, or says why not. Throws DataError or MissingInput if the pixels cannot be read.
    virtual Refusal read(std::size_t i, Cutout& cutout) const = 0;

protected:
    std::vector<CutoutEntry> entries_;
};

}  // namespace astroclip::survey
