#include "survey/multimodal_universe.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/error.hpp"
#include "survey/foreign_hdf5.hpp"
#include "survey/text.hpp"

namespace astroclip::survey {
namespace {

constexpr float nan32 = std::numeric_limits<float>::quiet_NaN();
constexpr double nan64 = std::numeric_limits<double>::quiet_NaN();
constexpr std::uint64_t max_rows = 1u << 25;            // a damaged header asks for more
constexpr double wavelength_tolerance_angstrom = 1e-3;  // float32 rounds 9824 by up to 0.0005
constexpr float no_flux = -99;

class MultimodalUniverse : public SpectrumFile {
public:
    MultimodalUniverse(const std::string& path, const SpectrumOptions& options)
        : options_(options), file_(path)
    {
        flux_ = spectra("spectrum_flux");
        ivar_ = spectra("spectrum_ivar");
        wavelength_ = spectra("spectrum_lambda");
        if (file_.has("spectrum_mask")) {
            mask_ = spectra("spectrum_mask");
        }
        read_targets();
    }

    Spectrum read(const Target& target) const override
    {
        const auto row = static_cast<std::uint64_t>(target.rows.front());
        check_wavelength(row);
        ArmSpectrum all{0, std::vector<float>(desi_bins), std::vector<float>(desi_bins),
                        std::vector<std::uint32_t>(desi_bins)};
        hdf5::read_rows(flux_, row, 1, all.flux.data(), file_.path());
        hdf5::read_rows(ivar_, row, 1, all.ivar.data(), file_.path());
        if (mask_ >= 0) {
            hdf5::read_rows(mask_, row, 1, all.mask.data(), file_.path());
        }
        return combine_arms({&all, 1}, options_.arm_rule);
    }

    void verify_checksums() const override {
    }  // Fletcher32, where there is one, is compared as chunks are read

private:
    // [rows, 7781]; the first sets the number of rows.
    hdf5::Handle spectra(const char* name)
    {
        auto found = file_.dataset(name);
        const auto shape = hdf5::dims(found);
        rows_ = flux_ < 0 && !shape.empty() ? shape[0] : rows_;
        if (shape.size() != 2 || shape[0] != rows_ || rows_ > max_rows || shape[1] != desi_bins) {
            throw DataError(file_.path(), fmt::format("dataset '{}' has shape [{}], [{}, {}] expected", name,
                                                      fmt::join(shape, ", "), rows_, desi_bins));
        }
        return found;
    }

    template <typename T>
    std::vector<T> required(std::initializer_list<const char*> names) const
    {
        return file_.column<T>(file_.first_of(names), rows_);
    }
    template <typename T>
    std::vector<T> optional(const char* name, T otherwise) const
    {
        return file_.has(name) ? file_.column<T>(name, rows_) : std::vector<T>(rows_, otherwise);
    }
    std::vector<std::string> texts(const char* name, const std::string& otherwise) const
    {
        return file_.has(name) ? file_.texts(name, rows_) : std::vector<std::string>(rows_, otherwise);
    }
    std::vector<float> fluxes(const char* name) const
    {
        auto values = optional<float>(name, nan32);
        std::replace(values.begin(), values.end(), no_flux, nan32);
        return values;
    }
    H5T_class_t type_class(const std::string& name) const
    {
        const hdf5::Handle type(H5Dget_type(file_.dataset(name)), H5Tclose);
        return H5Tget_class(type);
    }

    std::vector<std::int64_t> ids() const
    {
        const auto name = file_.first_of({"object_id", "targetid"});
        if (type_class(name) != H5T_STRING) {
            return file_.column<std::int64_t>(name, rows_);
        }
        std::vector<std::int64_t> ids;
        for (const auto& text : file_.texts(name, rows_)) {
            const auto id = to_number<std::int64_t>(text);
            if (!id) {
                throw DataError(file_.path(),
                                fmt::format("dataset '{}': '{}' is not a TARGETID", name, text));
            }
            ids.push_back(*id);
        }
        return ids;
    }

    // The bits of the warning. A truth value would not say whether true is good.
    std::vector<std::int64_t> warnings() const
    {
        if (file_.has("zwarn") && type_class("zwarn") != H5T_INTEGER) {
            throw DataError(file_.path(), "dataset 'ZWARN' does not hold integers, the bits of the warning");
        }
        return optional<std::int64_t>("zwarn", -1);
    }

    void read_targets()
    {
        const auto id = ids();
        const auto ra = required<double>({"ra", "target_ra"}), dec = required<double>({"dec", "target_dec"});
        const auto z = optional<double>("z", nan64), error = optional<double>("zerr", nan64);
        const auto warning = warnings();
        const auto spectype = texts("spectype", ""), objtype = texts("objtype", "TGT");
        const auto status = optional<std::int64_t>("coadd_fiberstatus", 0);
        const auto release = optional<std::int32_t>("release", -1),
                   brickid = optional<std::int32_t>("brickid", -1),
                   objid = optional<std::int32_t>("brick_objid", -1);
        const auto ebv = optional<float>("ebv", nan32);
        const auto g = fluxes("flux_g"), r = fluxes("flux_r"), flux_z = fluxes("flux_z");
        targets_.resize(rows_);
        for (std::size_t i = 0; i < rows_; ++i) {
            auto& target = targets_[i];
            target.object_id = id[i];
            target.rows = {static_cast<std::int64_t>(i)};
            target.ra = ra[i];
            target.dec = dec[i];
            target.objtype = objtype[i];
            target.fibre_status = status[i];
            target.brick = {release[i], brickid[i], objid[i]};
            target.flux_g = g[i];
            target.flux_r = r[i];
            target.flux_z = flux_z[i];
            target.ebv = ebv[i];
            target.redshift.z = z[i];
            target.redshift.error = error[i];
            target.redshift.warning = warning[i];
            target.redshift.spectype = spectype[i];
        }
    }

    void check_wavelength(std::uint64_t row) const
    {
        std::vector<double> wavelength(desi_bins);
        hdf5::read_rows(wavelength_, row, 1, wavelength.data(), file_.path());
        for (int i = 0; i < desi_bins; ++i) {
            const auto expected = desi_first_angstrom + desi_step_angstrom * i;
            // Written so that NaN fails too.
            if (!(std::abs(wavelength[i] - expected) <= wavelength_tolerance_angstrom)) {
                throw DataError(file_.path(),
                                fmt::format("spectrum_lambda, row {}: bin {} is at {} Angstrom, {:.1f} "
                                            "expected (grid 3600 + 0.8 i)",
                                            row, i, wavelength[i], expected));
            }
        }
    }

    SpectrumOptions options_;
    ForeignHdf5 file_;
    std::uint64_t rows_ = 0;
    hdf5::Handle flux_, ivar_, wavelength_, mask_;
};

}  // namespace

std::unique_ptr<SpectrumFile> open_multimodal_universe(const std::string& path,
                                                       const SpectrumOptions& options)
{
    return std::make_unique<MultimodalUniverse>(path, options);
}

bool may_hold_spectra(const std::string& path)
{
    try {
        return ForeignHdf5(path).has("spectrum_flux");
    } catch (const Error&) {
        return true;
    }
}

}  // namespace astroclip::survey
