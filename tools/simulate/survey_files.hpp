#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "tools/simulate/galaxy.hpp"
#include "tools/simulate/imaging.hpp"
#include "tools/simulate/spectroscopy.hpp"

// The surveys' own formats. Equal content gives equal bytes. All throw IoError.
namespace astroclip::simulate {

// One fibre. `galaxy` is null for a sky fibre.
struct Fibre {
    const Galaxy* galaxy = nullptr;
    Imaging imaging;
    Spectrum spectrum;
    Redrock redrock;
    std::int64_t targetid = 0;
    double ra = 0, dec = 0;
    std::int32_t fiberstatus = 0;
};

struct ImageRow {
    const Galaxy* galaxy = nullptr;
    Imaging imaging;
    std::int64_t rank = 0;      // its number in the whole sample, by decreasing z flux
    std::vector<float> pixels;  // [3, size, size]
};

struct TruthRow {
    const Galaxy* galaxy = nullptr;
    Imaging imaging;
    float snr = 0;             // median per bin of the spectrum; 0 if it was lost
    std::int32_t defects = 0;  // sum of the bits below
};
enum Defect : std::int32_t {
    defect_nan_pixels = 1,
    defect_dead_fibre = 2,
    defect_zero_spectrum = 4,
    defect_duplicate_image = 8,
    defect_duplicate_spectrum = 16,
    defect_truncated_image_file = 32,
    defect_truncated_spectrum_file = 64
};

// coadd-*.fits: FIBERMAP, {B,R,Z}_{WAVELENGTH,FLUX,IVAR,MASK}, SCORES. DESI wrote MASK as int32 and as
// uint32.
void write_coadd(const std::string& path, const std::vector<Fibre>& fibres, std::int32_t tile,
                 bool unsigned_mask);
// redrock-*.fits: REDSHIFTS in the order of the coadd's FIBERMAP, and a FIBERMAP.
void write_redrock(const std::string& path, const std::vector<Fibre>& fibres, std::int32_t tile);

// A chunk of the image sample of Stein et al.: `images` (n, 3, size, size) float32 and the columns of the
// catalogue.
void write_image_chunk(const std::string& path, const std::vector<ImageRow>& rows, int size);
// A file as the Legacy Survey cutout service gives it, and the list that names such files.
void write_cutout(const std::string& path, const ImageRow& row, int size);
std::string cutout_name(const Galaxy& galaxy);
void write_cutout_list(const std::string& path, const std::vector<ImageRow>& rows);

// truth.fits: HDU TRUTH, one row a galaxy.
void write_truth(const std::string& path, const std::vector<TruthRow>& rows);
// votes.csv: object_id, ra, dec and, of each poll, the columns of GZD-5: QUESTION_total-votes and
// QUESTION_ANSWER_debiased, the share of the votes as they are, empty where nobody was asked.
void write_votes(const std::string& path, const std::vector<TruthRow>& rows, std::uint64_t seed);

}  // namespace astroclip::simulate
