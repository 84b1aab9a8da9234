#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "survey/arms.hpp"
#include "survey/object_id.hpp"

// Spectra as surveys deliver them, whatever the survey: targets, and each one's spectrum on DESI's grid.
namespace astroclip::survey {

// A redshift fit. NaN, -1 and "" where there is none.
struct Redshift {
    double z, error;
    std::int64_t warning = -1;  // bits of ZWARN (SDSS: ZWARNING, whose bits are the same up to 9)
    std::string spectype;       // GALAXY, QSO, STAR
    Redshift();
};

// One target of a file: what its tables say about it.
struct Target {
    std::int64_t object_id = -1;     // TARGETID, or as object_id.hpp has it for other spectra
    std::vector<std::int64_t> rows;  // in the file: one, or one an exposure
    double ra = 0, dec = 0;          // degrees ICRS; 0, 0 in anonymous files
    std::string objtype = "TGT";     // TGT, SKY, …
    std::int64_t fibre_status = 0;   // bits; 0 is good
    BrickId brick;                   // -1 each if absent
    float flux_g, flux_r,
        flux_z;  // nanomaggy, as in the file: 0 means that the imaging catalogue has no match; NaN: no column
    float ebv;   // mag
    Redshift redshift;
    Target();
};

// Why a target is not wanted, or "".
struct TargetSelection {
    std::int64_t max_zwarn = -1;  // -1: all are accepted, also those without a redshift
    std::string reason_against(const Target& target) const;
};

struct SpectrumOptions {
    ArmRule arm_rule = ArmRule::edr;
    bool anonymous = false;   // accept a file that says neither ids nor positions, under ids of its own
    std::string redshifts{};  // path of the redrock file of a DESI file; "": none
};

// A file of spectra.
class SpectrumFile {
public:
    virtual ~SpectrumFile() = default;

    // Told apart by content, never by name: HDF5 of the Multimodal Universe; FITS of SDSS (HDU COADD), of
    // MaNGA (WAVE, FLUX, IVAR, Z) or of DESI. DataError if it is none of them, or not as its kind should be;
    // MissingInput if it is not there.
    static std::unique_ptr<SpectrumFile> open(const std::string& path, const SpectrumOptions& options);

    const std::vector<Target>& targets() const { return targets_; }
    virtual Spectrum read(const Target& target) const = 0;
    // Compares what is read with the checksums that the file has; DataError.
    virtual void verify_checksums() const = 0;

protected:
    // Targets without position under ids of their own, one a row; DataError unless `options` allow it.
    // `what_lacks`: "no HDU 'FIBERMAP'".
    void name_anonymously(const std::string& path, std::int64_t rows, const SpectrumOptions& options,
                          const std::string& what_lacks);

    std::vector<Target> targets_;
};

// For the list of a folder: whether the file bears the name of spectra (coadd-*, spectra-*, spec-*; .fits or
// .fits.gz) or is HDF5 (*.h5, *.hdf5) that holds spectra or cannot be opened.
bool looks_like_spectra(const std::string& path);

}  // namespace astroclip::survey
