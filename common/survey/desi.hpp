#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "survey/fits.hpp"
#include "survey/spectra.hpp"

// DESI spectra as the survey delivers them: coadd-*.fits and spectra-*.fits, with redrock-*.fits beside them.
namespace astroclip::survey {

// A coadd file (one row a target) or a spectra file (one row an exposure, coadded here). HDUs by EXTNAME;
// MASK may be plain, unsigned, tile-compressed or absent. Throws DataError (another wavelength grid, missing
// HDU, rows that do not agree).
std::unique_ptr<SpectrumFile> open_desi(std::unique_ptr<fits::File> file, const SpectrumOptions& options);

// HDU REDSHIFTS (or ZBEST of older files) of a redrock file, by TARGETID.
std::map<std::int64_t, Redshift> read_redshifts(const std::string& path);

// The redrock file that belongs to a file of spectra: coadd-X or spectra-X -> redrock-X (or zbest-X) in the
// same folder, gzipped or not. "" if there is none.
std::string redshift_file_beside(const std::string& spectra_path);

// The TARGETIDs of the rows of a damaged file, as far as its FIBERMAP can be read; else empty.
std::vector<std::int64_t> surviving_ids(const std::string& path);

}  // namespace astroclip::survey
