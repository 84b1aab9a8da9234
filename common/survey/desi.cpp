#include "survey/desi.hpp"

#include <fmt/format.h>

#include <cmath>
#include <filesystem>
#include <limits>
#include <unordered_map>

#include "core/error.hpp"
#include "survey/fits_columns.hpp"

namespace astroclip::survey {
namespace {

constexpr double nan64 = std::numeric_limits<double>::quiet_NaN();
constexpr float nan32 = std::numeric_limits<float>::quiet_NaN();
constexpr double grid_tolerance_angstrom = 1e-4;

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

// FIBERMAP and REDSHIFTS, by row.
class Fibermap {
public:
    Fibermap(const fits::File& file, const std::string& redshifts);

    std::size_t rows() const { return ids_.size(); }
    // A coadd file has one row a target; where a target has several, they are its exposures if the file
    // counts exposures, and otherwise duplicates, which are for the plan to settle.
    std::vector<Target> targets() const;

private:
    Target target(std::size_t row) const;

    std::vector<std::int64_t> ids_, status_, release_, brickid_, objid_;
    std::vector<double> ra_, dec_;
    std::vector<std::string> objtype_;
    std::vector<float> flux_g_, flux_r_, flux_z_, ebv_;
    bool exposures_;
    std::map<std::int64_t, Redshift> redshifts_;
};

Fibermap::Fibermap(const fits::File& file, const std::string& redshifts)
{
    const fits::Columns columns(file, file.find("FIBERMAP"));
    ids_ = columns.required<std::int64_t>("TARGETID");
    const bool older = !columns.has("TARGET_RA") && columns.has("RA_TARGET");
    ra_ = columns.required<double>(older ? "RA_TARGET" : "TARGET_RA");
    dec_ = columns.required<double>(older ? "DEC_TARGET" : "TARGET_DEC");
    objtype_ = columns.texts({"OBJTYPE"}, "TGT");
    status_ = columns.optional<std::int64_t>({"COADD_FIBERSTATUS", "FIBERSTATUS"}, 0);
    release_ = columns.optional<std::int64_t>({"RELEASE"}, -1);
    brickid_ = columns.optional<std::int64_t>({"BRICKID"}, -1);
    objid_ = columns.optional<std::int64_t>({"BRICK_OBJID"}, -1);
    flux_g_ = columns.optional<float>({"FLUX_G"}, nan32);
    flux_r_ = columns.optional<float>({"FLUX_R"}, nan32);
    flux_z_ = columns.optional<float>({"FLUX_Z"}, nan32);
    ebv_ = columns.optional<float>({"EBV"}, nan32);
    exposures_ = columns.has("EXPID") && !columns.has("COADD_FIBERSTATUS");
    if (!redshifts.empty()) {
        redshifts_ = read_redshifts(redshifts);
    }
}

std::vector<Target> Fibermap::targets() const
{
    std::vector<Target> targets;
    std::unordered_map<std::int64_t, std::size_t> known;
    for (std::size_t i = 0; i < rows(); ++i) {
        const auto found = exposures_ && ids_[i] >= 0 ? known.find(ids_[i]) : known.end();
        if (found == known.end()) {
            known.emplace(ids_[i], targets.size());
            targets.push_back(target(i));
            continue;
        }
        auto& earlier = targets[found->second];
        if (status_[i] != 0) {
            continue;
        }
        if (earlier.fibre_status != 0) {  // the first good exposure speaks for the target
            earlier.rows.clear();
            earlier.fibre_status = 0;
        }
        earlier.rows.push_back(static_cast<std::int64_t>(i));
    }
    return targets;
}

Target Fibermap::target(std::size_t row) const
{
    Target target;
    target.object_id = ids_[row];
    target.rows = {static_cast<std::int64_t>(row)};
    target.ra = ra_[row];
    target.dec = dec_[row];
    target.objtype = objtype_[row];
    target.fibre_status = status_[row];
    target.brick = {static_cast<std::int32_t>(release_[row]), static_cast<std::int32_t>(brickid_[row]),
                    static_cast<std::int32_t>(objid_[row])};
    target.flux_g = flux_g_[row];
    target.flux_r = flux_r_[row];
    target.flux_z = flux_z_[row];
    target.ebv = ebv_[row];
    if (const auto redshift = redshifts_.find(ids_[row]); redshift != redshifts_.end()) {
        target.redshift = redshift->second;
    }
    return target;
}

class DesiFile : public SpectrumFile {
public:
    DesiFile(std::unique_ptr<fits::File> file, const SpectrumOptions& options);
    Spectrum read(const Target& target) const override;
    void verify_checksums() const override;

private:
    struct Arm {
        std::string name;
        int flux = 0, ivar = 0, mask = -1, wavelength = 0;  // HDUs
        int first_bin = 0;
        std::int64_t pixels = 0;
    };
    const std::string& path() const { return file_->path(); }
    Arm open_arm(const std::string& name) const;
    ArmSpectrum read_arm(const Arm& arm, std::int64_t row) const;

    std::unique_ptr<fits::File> file_;
    ArmRule arm_rule_;
    std::vector<Arm> arms_;
};

DesiFile::DesiFile(std::unique_ptr<fits::File> file, const SpectrumOptions& options)
    : file_(std::move(file)), arm_rule_(options.arm_rule)
{
    if (file_->has("BRZ_FLUX")) {
        arms_.push_back(open_arm("BRZ"));
    } else {
        for (const auto* name : {"B", "R", "Z"}) {
            arms_.push_back(open_arm(name));
        }
    }
    const auto rows = file_->image_shape(arms_.front().flux).front();
    for (const auto& arm : arms_) {
        const auto own = file_->image_shape(arm.flux).front();
        if (own != rows) {
            throw DataError(path(), fmt::format("{}_FLUX has {} spectra, {}_FLUX {}", arm.name, own,
                                                arms_.front().name, rows));
        }
    }
    if (!file_->has("FIBERMAP")) {
        name_anonymously(path(), rows, options, "no HDU 'FIBERMAP'");
        return;
    }
    const Fibermap fibermap(*file_, options.redshifts);
    if (static_cast<std::int64_t>(fibermap.rows()) != rows) {
        throw DataError(path(), fmt::format("FIBERMAP has {} rows, {}_FLUX {} spectra", fibermap.rows(),
                                            arms_.front().name, rows));
    }
    targets_ = fibermap.targets();
}

DesiFile::Arm DesiFile::open_arm(const std::string& name) const
{
    Arm arm{name, file_->find(name + "_FLUX"), file_->find(name + "_IVAR")};
    arm.wavelength = file_->find(name + "_WAVELENGTH");
    arm.mask = file_->has(name + "_MASK") ? file_->find(name + "_MASK") : -1;
    const auto wavelength = file_->image_shape(arm.wavelength);
    if (wavelength.size() != 1 || wavelength[0] < 1 || wavelength[0] > desi_bins) {
        throw DataError(
            path(), fmt::format("{}_WAVELENGTH has shape [{}], up to {} pixels of one axis expected", name,
                                fmt::join(wavelength, ", "), desi_bins));
    }
    arm.pixels = wavelength[0];
    arm.first_bin = bin_of_first_pixel(path(), name, file_->read_image<double>(arm.wavelength));
    const auto flux = file_->image_shape(arm.flux);
    for (const auto hdu : {arm.flux, arm.ivar, arm.mask}) {
        const auto shape = hdu < 0 ? flux : file_->image_shape(hdu);
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

ArmSpectrum DesiFile::read_arm(const Arm& arm, std::int64_t row) const
{
    const std::vector<std::int64_t> first{row, 0}, count{1, arm.pixels};
    ArmSpectrum spectrum{arm.first_bin, file_->read_box<float>(arm.flux, first, count),
                         file_->read_box<float>(arm.ivar, first, count),
                         std::vector<std::uint32_t>(static_cast<std::size_t>(arm.pixels))};
    if (arm.mask >= 0) {
        // By way of 64 bits: the mask may be signed or unsigned.
        const auto mask = file_->read_box<std::int64_t>(arm.mask, first, count);
        std::copy(mask.begin(), mask.end(), spectrum.mask.begin());
    }
    return spectrum;
}

Spectrum DesiFile::read(const Target& target) const
{
    std::vector<ArmSpectrum> arms;
    for (const auto& arm : arms_) {
        std::vector<ArmSpectrum> exposures;
        for (const auto row : target.rows) {
            exposures.push_back(read_arm(arm, row));
        }
        arms.push_back(coadd_exposures(exposures));
    }
    return combine_arms(arms, arm_rule_);
}

void DesiFile::verify_checksums() const
{
    if (file_->has("FIBERMAP")) {
        file_->verify_checksum(file_->find("FIBERMAP"));
    }
    for (const auto& arm : arms_) {
        for (const auto hdu : {arm.flux, arm.ivar, arm.mask, arm.wavelength}) {
            if (hdu >= 0) {
                file_->verify_checksum(hdu);
            }
        }
    }
}

}  // namespace

std::unique_ptr<SpectrumFile> open_desi(std::unique_ptr<fits::File> file, const SpectrumOptions& options)
{
    return std::make_unique<DesiFile>(std::move(file), options);
}

std::map<std::int64_t, Redshift> read_redshifts(const std::string& path)
{
    const fits::File file(path);
    const auto hdu = file.has("ZBEST") ? file.find("ZBEST") : file.find("REDSHIFTS");
    file.verify_checksum(hdu);
    const fits::Columns columns(file, hdu);
    const auto ids = columns.required<std::int64_t>("TARGETID");
    const auto z = columns.required<double>("Z"), error = columns.optional<double>({"ZERR"}, nan64);
    const auto warning = columns.optional<std::int64_t>({"ZWARN"}, -1);
    const auto spectype = columns.texts({"SPECTYPE"}, "");
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
        return fits::Columns(file, file.find("FIBERMAP")).required<std::int64_t>("TARGETID");
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

}  // namespace astroclip::survey
