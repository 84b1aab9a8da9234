#include "survey/sdss.hpp"

#include <fmt/format.h>

#include <cmath>

#include "core/error.hpp"
#include "survey/fits_columns.hpp"
#include "survey/resample.hpp"

namespace astroclip::survey {
namespace {

constexpr double comb = 1e4;              // pixels a unit of log10(wavelength)
constexpr double comb_tolerance = 0.005;  // pixels: float32 rounds log10(10300) by up to 0.0024 of one
constexpr std::int64_t sky_bit = 1 << 0, unplugged_bit = 1 << 7;  // of ZWARNING
constexpr std::int64_t max_pixels = 100000;

class SdssSpectrum : public SpectrumFile {
public:
    explicit SdssSpectrum(std::unique_ptr<fits::File> file)
        : file_(std::move(file)),
          coadd_(file_->find("COADD")),
          object_(file_->has("SPALL") ? file_->find("SPALL") : file_->find("SPECOBJ"))
    {
        if (file_->text(0, "VACUUM", "T") == "F") {
            throw DataError(file_->path(), "header VACUUM = F: wavelengths in air; vacuum expected");
        }
        const auto unit = file_->text(0, "BUNIT", "1E-17");
        if (!fits::same_name(unit.substr(0, 5), "1E-17")) {
            throw DataError(file_->path(),
                            fmt::format("header BUNIT = '{}'; 1E-17 erg/cm^2/s/Ang expected", unit));
        }
        targets_.push_back(target());
    }

    Spectrum read(const Target&) const override
    {
        const fits::Columns columns(*file_, coadd_);
        if (columns.rows() < 1 || columns.rows() > max_pixels) {
            throw DataError(file_->path(), fmt::format("HDU 'COADD' has {} pixels", columns.rows()));
        }
        const auto log_wavelength = columns.required<double>("loglam");
        return resample({sdss_pixel_edges(log_wavelength, file_->path()), columns.required<float>("flux"),
                         columns.required<float>("ivar"), std::vector<std::uint32_t>(log_wavelength.size())});
    }

    void verify_checksums() const override
    {
        file_->verify_checksum(coadd_);
        file_->verify_checksum(object_);
    }

private:
    Target target() const
    {
        const fits::Columns columns(*file_, object_);
        if (columns.rows() != 1) {
            throw DataError(file_->path(), fmt::format("the table about the object has {} rows, 1 expected",
                                                       columns.rows()));
        }
        const auto whole = [&](const char* name) { return columns.required<std::int64_t>(name)[0]; };
        const auto number = [&](const char* name) { return columns.required<double>(name)[0]; };
        Target target;
        target.object_id = sdss_object_id(whole("PLATE"), whole("MJD"), whole("FIBERID"));
        if (target.object_id < 0) {
            throw DataError(file_->path(), fmt::format("plate {}, MJD {}, fibre {}: no such spectrum",
                                                       whole("PLATE"), whole("MJD"), whole("FIBERID")));
        }
        target.rows = {0};
        target.ra = number("PLUG_RA");
        target.dec = number("PLUG_DEC");
        auto& redshift = target.redshift;
        redshift.z = number("Z");
        redshift.error = number("Z_ERR");
        redshift.warning = whole("ZWARNING");
        redshift.spectype = columns.texts({"CLASS"}, "")[0];
        const bool sky = columns.texts({"OBJTYPE", "SOURCETYPE"}, "")[0] == "SKY";
        target.objtype = sky || (redshift.warning & sky_bit) != 0 ? "SKY" : "TGT";
        target.fibre_status = redshift.warning & unplugged_bit;
        return target;
    }

    std::unique_ptr<fits::File> file_;
    int coadd_, object_;  // HDUs
};

}  // namespace

std::unique_ptr<SpectrumFile> open_sdss(std::unique_ptr<fits::File> file)
{
    return std::make_unique<SdssSpectrum>(std::move(file));
}

std::vector<double> sdss_pixel_edges(const std::vector<double>& log_wavelength, const std::string& path)
{
    const auto first = std::round(log_wavelength.at(0) * comb);
    std::vector<double> edges;
    for (std::size_t i = 0; i <= log_wavelength.size(); ++i) {
        const auto k = first + static_cast<double>(i);
        // Written so that NaN fails too.
        if (i < log_wavelength.size() && !(std::abs(log_wavelength[i] * comb - k) <= comb_tolerance)) {
            throw DataError(path,
                            fmt::format("pixel {} is at log10(wavelength) = {:.6f}, {:.4f} expected (the "
                                        "comb of SDSS, whole multiples of 0.0001)",
                                        i, log_wavelength[i], k / comb));
        }
        edges.push_back(std::pow(10.0, (k - 0.5) / comb));
    }
    return edges;
}

}  // namespace astroclip::survey
