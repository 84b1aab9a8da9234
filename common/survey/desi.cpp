#include "survey/desi.hpp"

#include <fmt/format.h>

#include <cmath>
#include <filesystem>
#include <limits>
#include <unordered_map>

#include "core/error.hpp"

namespace astroclip::survey {
namespace {

constexpr double nan64 = std::numeric_limits<double>::quiet_NaN();
constexpr float nan32 = std::numeric_limits<float>::quiet_NaN();
constexpr double grid_tolerance_angstrom = 1e-4;

// The columns of one table; those that a file may lack are read as a default.
class Columns {
public:
    Columns(const fits::File& file, int hdu)
        : file_(file), hdu_(hdu), columns_(file.columns(hdu)), rows_(file.rows(hdu))
    {
    }

    bool has(const std::string& name) const { return fits::find_column(columns_, name) != nullptr; }

    template <typename T>
    std::vector<T> required(const std::string& name) const
    {
        return file_.read_column<T>(hdu_, scalar(name));
    }
    template <typename T>
    std::vector<T> optional(std::initializer_list<const char*> names, T otherwise) const
    {
        for (const auto* name : names) {
            if (has(name)) {
                return required<T>(name);
            }
        }
        return std::vector<T>(static_cast<std::size_t>(rows_), otherwise);
    }
    std::vector<std::string> texts(const std::string& name, const std::string& otherwise) const
    {
        if (!has(name)) {
            return std::vector<std::string>(static_cast<std::size_t>(rows_), otherwise);
        }
        return file_.read_texts(hdu_, *fits::find_column(columns_, name));
    }

private:
    const fits::Column& scalar(const std::string& name) const
    {
        const auto* column = fits::find_column(columns_, name);
        if (!column) {
            throw DataError(file_.path(), fmt::format("no column '{}' in the table of HDU {}", name, hdu_));
        }
        if (column->repeat != 1) {
            throw DataError(file_.path(), fmt::format("column '{}' has {} elements a row, 1 expected", name,
                                                      column->repeat));
        }
        return *column;
    }

    const fits::File& file_;
    int hdu_;
    std::vector<fits::Column> columns_;
    std::int64_t rows_;
};

int bin_of_first_pixel(const std::string& path, const std::string& arm, const std::vector<double>& wavelength)
{
    const auto first = std::lround((wavelength.at(0) - desi_first_angstrom) / desi_step_angstrom);
    for (std::size_t i = 0; i < wavelength.size(); ++i) {
        const double expected =
            desi_first_angstrom + desi_step_angstrom * static_cast<double>(first + static_cast<long>(i));
        // Written so that NaN fails too.
        if (!(std::abs(wavelength[i] - expected) <= grid_tolerance_angstrom)) {
            throw DataError(
                path,
                fmt::format("{}_WAVELENGTH: pixel {} is at {} Angstrom, {:.4f} expected (grid 3600 + 0.8 i, "
                            "within {} Angstrom)",
                            arm, i, wavelength[i], expected, grid_tolerance_angstrom));
        }
    }
    if (first < 0 || first + static_cast<long>(wavelength.size()) > desi_bins) {
        throw DataError(path, fmt::format("{}_WAVELENGTH: {} to {} Angstrom, but the grid has 3600 to 9824",
                                          arm, wavelength.front(), wavelength.back()));
    }
    return static_cast<int>(first);
}

std::string with_stem(const std::filesystem::path& path, const std::string& from, const std::string& to)
{
    return (path.parent_path() / (to + path.filename().string().substr(from.size()))).string();
}

}  // namespace

Redshift::Redshift() : z(nan64), error(nan64) {}
Target::Target() : flux_g(nan32), flux_r(nan32), flux_z(nan32), ebv(nan32) {}

std::map<std::int64_t, Redshift> read_redshifts(const std::string& path)
{
    const fits::File file(path);
    const auto hdu = file.has("ZBEST") ? file.find("ZBEST") : file.find("REDSHIFTS");
    file.verify_checksum(hdu);
    const Columns columns(file, hdu);
    const auto ids = columns.required<std::int64_t>("TARGETID");
    const auto z = columns.required<double>("Z"), error = columns.optional<double>({"ZERR"}, nan64);
    const auto warning = columns.optional<std::int64_t>({"ZWARN"}, -1);
    const auto spectype = columns.texts("SPECTYPE", "");
    std::map<std::int64_t, Redshift> redshifts;
    for (std::size_t i = 0; i < ids.size(); ++i) {
        Redshift redshift;
        redshift.z = std::isfinite(z[i]) ? z[i] : nan64;
        redshift.error = std::isfinite(error[i]) ? error[i] : nan64;
        redshift.warning = warning[i];
        redshift.spectype = spectype[i];
        redshifts.emplace(ids[i], redshift);
    }
    return redshifts;
}

std::vector<std::int64_t> surviving_ids(const std::string& path)
{
    try {
        const fits::File file(path, true);
        return Columns(file, file.find("FIBERMAP")).required<std::int64_t>("TARGETID");
    } catch (const DataError&) {
        return {};
    }
}

std::string redshift_file_beside(const std::string& spectra_path)
{
    const std::filesystem::path path(spectra_path);
    for (const std::string from : {"coadd-", "spectra-"}) {
        if (!path.filename().string().starts_with(from)) {
            continue;
        }
        for (const std::string to : {"redrock-", "zbest-"}) {
            auto candidate = with_stem(path, from, to);
            const auto plain =
                candidate.ends_with(".gz") ? candidate.substr(0, candidate.size() - 3) : candidate;
            for (const auto& name : {candidate, plain, plain + ".gz"}) {
                if (std::filesystem::exists(name)) {
                    return name;
                }
            }
        }
    }
    return "";
}

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

SpectrumFile::SpectrumFile(const std::string& path, const Options& options) : file_(path), options_(options)
{
    if (!file_.has("B_FLUX") && file_.has("REDSHIFTS")) {
        throw DataError(path,
                        "holds redshifts, no spectra: give the coadd-*.fits file, with this one beside it");
    }
    if (file_.has("BRZ_FLUX")) {
        arms_.push_back(open_arm("BRZ"));
    } else {
        for (const auto* name : {"B", "R", "Z"}) {
            arms_.push_back(open_arm(name));
        }
    }
    rows_ = file_.image_shape(arms_.front().flux).front();
    for (const auto& arm : arms_) {
        const auto rows = file_.image_shape(arm.flux).front();
        if (rows != rows_) {
            throw DataError(path, fmt::format("{}_FLUX has {} spectra, {}_FLUX {}", arm.name, rows,
                                              arms_.front().name, rows_));
        }
    }
    if (file_.has("FIBERMAP")) {
        read_fibermap();
    } else if (options_.anonymous) {
        name_anonymously();
    } else {
        throw DataError(
            path,
            fmt::format("no HDU 'FIBERMAP': its {} spectra have neither ids nor positions (anonymous = true "
                        "takes them under ids of their own); there are: {}",
                        rows_, file_.hdu_names()));
    }
}

SpectrumFile::Arm SpectrumFile::open_arm(const std::string& name) const
{
    Arm arm{name, file_.find(name + "_FLUX"), file_.find(name + "_IVAR")};
    arm.wavelength = file_.find(name + "_WAVELENGTH");
    arm.mask = file_.has(name + "_MASK") ? file_.find(name + "_MASK") : -1;
    const auto wavelength = file_.image_shape(arm.wavelength);
    if (wavelength.size() != 1 || wavelength[0] < 1 || wavelength[0] > desi_bins) {
        throw DataError(
            path(), fmt::format("{}_WAVELENGTH has shape [{}], up to {} pixels of one axis expected", name,
                                fmt::join(wavelength, ", "), desi_bins));
    }
    arm.pixels = wavelength[0];
    arm.first_bin = bin_of_first_pixel(path(), name, file_.read_image<double>(arm.wavelength));
    const auto flux = file_.image_shape(arm.flux);
    for (const auto hdu : {arm.flux, arm.ivar, arm.mask}) {
        const auto shape = hdu < 0 ? flux : file_.image_shape(hdu);
        if (shape.size() != 2 || shape[1] != arm.pixels || shape != flux) {
            throw DataError(path(),
                            fmt::format("{} has shape [{}], [{}, {}] expected",
                                        hdu == arm.flux   ? name + "_FLUX"
                                        : hdu == arm.ivar ? name + "_IVAR"
                                                          : name + "_MASK",
                                        fmt::join(shape, ", "), flux.empty() ? 0 : flux[0], arm.pixels));
        }
    }
    return arm;
}

void SpectrumFile::read_fibermap()
{
    const auto hdu = file_.find("FIBERMAP");
    const Columns columns(file_, hdu);
    const auto ids = columns.required<std::int64_t>("TARGETID");
    if (static_cast<std::int64_t>(ids.size()) != rows_) {
        throw DataError(path(), fmt::format("FIBERMAP has {} rows, {}_FLUX {} spectra", ids.size(),
                                            arms_.front().name, rows_));
    }
    const auto ra_name = columns.has("TARGET_RA")   ? "TARGET_RA"
                         : columns.has("RA_TARGET") ? "RA_TARGET"
                                                    : "TARGET_RA";
    const auto dec_name = columns.has("TARGET_DEC")   ? "TARGET_DEC"
                          : columns.has("DEC_TARGET") ? "DEC_TARGET"
                                                      : "TARGET_DEC";
    const auto ra = columns.required<double>(ra_name), dec = columns.required<double>(dec_name);
    const auto objtype = columns.texts("OBJTYPE", "TGT"), morphtype = columns.texts("MORPHTYPE", "");
    const auto status = columns.optional<std::int64_t>({"COADD_FIBERSTATUS", "FIBERSTATUS"}, 0);
    const auto release = columns.optional<std::int64_t>({"RELEASE"}, -1);
    const auto brickid = columns.optional<std::int64_t>({"BRICKID"}, -1);
    const auto objid = columns.optional<std::int64_t>({"BRICK_OBJID"}, -1);
    const auto g = columns.optional<float>({"FLUX_G"}, nan32), r = columns.optional<float>({"FLUX_R"}, nan32),
               z = columns.optional<float>({"FLUX_Z"}, nan32), ebv = columns.optional<float>({"EBV"}, nan32);
    const auto redshifts =
        options_.redshifts.empty() ? std::map<std::int64_t, Redshift>() : read_redshifts(options_.redshifts);

    // A coadd file has one row a target; where a target has several, they are its exposures if the file
    // counts exposures, and otherwise duplicates, which are for the plan to settle.
    const bool exposures = columns.has("EXPID") && !columns.has("COADD_FIBERSTATUS");
    std::unordered_map<std::int64_t, std::size_t> known;
    for (std::size_t i = 0; i < ids.size(); ++i) {
        const auto found = exposures && ids[i] >= 0 ? known.find(ids[i]) : known.end();
        if (found != known.end()) {
            auto& target = targets_[found->second];
            if (target.fibre_status != 0 &&
                status[i] == 0) {  // the first good exposure speaks for the target
                target.rows.clear();
                target.fibre_status = 0;
            }
            if (target.fibre_status == 0 && status[i] == 0) {
                target.rows.push_back(static_cast<std::int64_t>(i));
            }
            continue;
        }
        known.emplace(ids[i], targets_.size());
        auto& target = targets_.emplace_back();
        target.object_id = ids[i];
        target.rows = {static_cast<std::int64_t>(i)};
        target.ra = ra[i];
        target.dec = dec[i];
        target.objtype = objtype[i];
        target.fibre_status = status[i];
        target.brick = {static_cast<std::int32_t>(release[i]), static_cast<std::int32_t>(brickid[i]),
                        static_cast<std::int32_t>(objid[i])};
        target.flux_g = g[i];
        target.flux_r = r[i];
        target.flux_z = z[i];
        target.ebv = ebv[i];
        target.morphtype = morphtype[i];
        if (const auto redshift = redshifts.find(ids[i]); redshift != redshifts.end()) {
            target.redshift = redshift->second;
        }
    }
}

void SpectrumFile::name_anonymously()
{
    const auto name = std::filesystem::path(path()).filename().string();
    for (std::int64_t row = 0; row < rows_; ++row) {
        auto& target = targets_.emplace_back();
        target.object_id = anonymous_object_id(name, row);
        target.rows = {row};
    }
}

ArmSpectrum SpectrumFile::read_arm(const Arm& arm, std::int64_t row) const
{
    const std::vector<std::int64_t> first{row, 0}, count{1, arm.pixels};
    ArmSpectrum spectrum{arm.first_bin, file_.read_box<float>(arm.flux, first, count),
                         file_.read_box<float>(arm.ivar, first, count),
                         std::vector<std::uint32_t>(static_cast<std::size_t>(arm.pixels))};
    if (arm.mask >= 0) {
        // By way of 64 bits: the mask may be signed or unsigned.
        const auto mask = file_.read_box<std::int64_t>(arm.mask, first, count);
        std::copy(mask.begin(), mask.end(), spectrum.mask.begin());
    }
    return spectrum;
}

Spectrum SpectrumFile::read(const Target& target) const
{
    std::vector<ArmSpectrum> arms;
    for (const auto& arm : arms_) {
        std::vector<ArmSpectrum> exposures;
        for (const auto row : target.rows) {
            exposures.push_back(read_arm(arm, row));
        }
        arms.push_back(coadd_exposures(exposures));
    }
    return combine_arms(arms, options_.arm_rule);
}

void SpectrumFile::verify_checksums() const
{
    if (file_.has("FIBERMAP")) {
        file_.verify_checksum(file_.find("FIBERMAP"));
    }
    for (const auto& arm : arms_) {
        for (const auto hdu : {arm.flux, arm.ivar, arm.mask, arm.wavelength}) {
            if (hdu >= 0) {
                file_.verify_checksum(hdu);
            }
        }
    }
}

}  // namespace astroclip::survey
