#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "survey/arms.hpp"
#include "survey/fits.hpp"
#include "survey/object_id.hpp"

// DESI spectra as the survey delivers them: coadd-*.fits and spectra-*.fits, with redrock-*.fits beside them.
namespace astroclip::survey {

// A redshift fit. NaN, -1 and "" where there is none.
struct Redshift {
    double z, error;
    std::int64_t warning = -1;
    std::string spectype;
    Redshift();
};

// HDU REDSHIFTS (or ZBEST of older files) of a redrock file, by TARGETID.
std::map<std::int64_t, Redshift> read_redshifts(const std::string& path);

// The redrock file that belongs to a file of spectra: coadd-X or spectra-X -> redrock-X (or zbest-X) in the
// same folder, gzipped or not. "" if there is none.
std::string redshift_file_beside(const std::string& spectra_path);

// One target of a file: what FIBERMAP and REDSHIFTS say about it.
struct Target {
    std::int64_t object_id = -1;     // TARGETID, or an id of our own (anonymous files)
    std::vector<std::int64_t> rows;  // in the file: one, or one an exposure
    double ra = 0, dec = 0;          // degrees ICRS; 0, 0 in anonymous files
    std::string objtype = "TGT";     // TGT, SKY, …
    std::int64_t fibre_status = 0;   // bits; 0 is good
    BrickId brick;                   // -1 each if absent
    float flux_g, flux_r,
        flux_z;  // nanomaggy, as in the file: 0 means that the imaging catalogue has no match; NaN: no column
    float ebv;   // mag
    std::string morphtype;
    Redshift redshift;
    Target();
};

// The TARGETIDs of the rows of a damaged file, as far as its FIBERMAP can be read; else empty.
std::vector<std::int64_t> surviving_ids(const std::string& path);

// Why a target is not wanted, or "".
struct TargetSelection {
    std::int64_t max_zwarn = -1;  // -1: all are accepted, also those without a redshift
    std::string reason_against(const Target& target) const;
};

// A coadd file (one row a target) or a spectra file (one row an exposure, coadded here). HDUs by EXTNAME;
// MASK may be plain, unsigned, tile-compressed or absent. Throws DataError (another wavelength grid, missing
// HDU, rows that do not agree).
class SpectrumFile {
public:
    struct Options {
        ArmRule arm_rule = ArmRule::edr;
        bool anonymous = false;  // accept a file without FIBERMAP, under ids of its own
        std::string redshifts;   // path of the redrock file; "": none
    };
    SpectrumFile(const std::string& path, const Options& options);

    const std::string& path() const { return file_.path(); }
    const std::vector<Target>& targets() const { return targets_; }
    Spectrum read(const Target& target) const;

    // Compares the HDUs that are used with their CHECKSUM and DATASUM.
    void verify_checksums() const;

private:
    struct Arm {
        std::string name;
        int flux = 0, ivar = 0, mask = -1, wavelength = 0;  // HDUs
        int first_bin = 0;
        std::int64_t pixels = 0;
    };
    Arm open_arm(const std::string& name) const;
    ArmSpectrum read_arm(const Arm& arm, std::int64_t row) const;
    void read_fibermap();
    void name_anonymously();

    fits::File file_;
    Options options_;
    std::vector<Arm> arms_;
    std::int64_t rows_ = 0;
    std::vector<Target> targets_;
};

}  // namespace astroclip::survey
