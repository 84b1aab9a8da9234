#include "survey/spectra.hpp"

#include <fmt/format.h>

#include <filesystem>
#include <limits>
#include <regex>

#include "core/error.hpp"
#include "survey/desi.hpp"
#include "survey/foreign_hdf5.hpp"
#include "survey/multimodal_universe.hpp"
#include "survey/sdss.hpp"

namespace astroclip::survey {
namespace {

constexpr double nan64 = std::numeric_limits<double>::quiet_NaN();
constexpr float nan32 = std::numeric_limits<float>::quiet_NaN();

bool has_all(const fits::File& file, std::initializer_list<const char*> names)
{
    return std::all_of(names.begin(), names.end(), [&](const auto* name) { return file.has(name); });
}

bool has_any(const fits::File& file, std::initializer_list<const char*> names)
{
    return std::any_of(names.begin(), names.end(), [&](const auto* name) { return file.has(name); });
}

}  // namespace

Redshift::Redshift() : z(nan64), error(nan64) {}
Target::Target() : flux_g(nan32), flux_r(nan32), flux_z(nan32), ebv(nan32) {}

std::string TargetSelection::reason_against(const Target& target) const
{
    if (target.objtype == "SKY") {
        return "sky fibre";
    }
    if (target.objtype != "TGT" || target.object_id < 0) {
        return "not a target";
    }
    if (target.fibre_status != 0) {
        return "fibre status";
    }
    if (max_zwarn >= 0 && (target.redshift.warning < 0 || target.redshift.warning > max_zwarn)) {
        return "redshift warning";
    }
    return "";
}

std::unique_ptr<SpectrumFile> SpectrumFile::open(const std::string& path, const SpectrumOptions& options)
{
    if (is_hdf5(path)) {
        return open_multimodal_universe(path, options);
    }
    auto file = std::make_unique<fits::File>(path);
    if (file->has("COADD")) {
        return open_sdss(std::move(file));
    }
    if (has_all(*file, {"WAVE", "FLUX", "IVAR", "Z"})) {
        return open_manga(std::move(file), options);
    }
    if (has_any(*file, {"B_FLUX", "R_FLUX", "Z_FLUX", "BRZ_FLUX"})) {
        return open_desi(std::move(file), options);
    }
    if (has_any(*file, {"REDSHIFTS", "ZBEST"})) {
        throw DataError(path,
                        "holds redshifts, no spectra: give the coadd-*.fits file, with this one beside it");
    }
    throw DataError(path,
                    fmt::format("no spectra of a known kind: HDUs B_FLUX … (DESI), COADD (SDSS) or WAVE, "
                                "FLUX, IVAR, Z (MaNGA) expected; there are: {}",
                                file->hdu_names()));
}

void SpectrumFile::name_anonymously(const std::string& path, std::int64_t rows,
                                    const SpectrumOptions& options, const std::string& what_lacks)
{
    if (!options.anonymous) {
        throw DataError(
            path, fmt::format("{}: its {} spectra have neither ids nor positions (anonymous = true takes "
                              "them under ids of their own)",
                              what_lacks, rows));
    }
    const auto name = std::filesystem::path(path).filename().string();
    for (std::int64_t row = 0; row < rows; ++row) {
        auto& target = targets_.emplace_back();
        target.object_id = anonymous_object_id(name, row);
        target.rows = {row};
    }
}

bool looks_like_spectra(const std::string& path)
{
    static const std::regex fits_name("(coadd|spectra|spec)-.*\\.fits(\\.gz)?");
    const std::filesystem::path file(path);
    return std::regex_match(file.filename().string(), fits_name) ||
           ((file.extension() == ".h5" || file.extension() == ".hdf5") && may_hold_spectra(path));
}

}  // namespace astroclip::survey
