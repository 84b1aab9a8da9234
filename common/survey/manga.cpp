#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "core/error.hpp"
#include "survey/resample.hpp"
#include "survey/sdss.hpp"

namespace astroclip::survey {
namespace {

constexpr std::int64_t max_pixels = 100000;

class MangaStack : public SpectrumFile {
public:
    MangaStack(std::unique_ptr<fits::File> file, const SpectrumOptions& options)
        : file_(std::move(file)), flux_(file_->find("FLUX")), ivar_(file_->find("IVAR"))
    {
        mask_ = file_->has("MASK") ? file_->find("MASK") : -1;
        const auto wave = file_->image_shape(file_->find("WAVE")), shape = file_->image_shape(flux_);
        if (wave.size() != 1 || wave[0] < 1 || wave[0] > max_pixels || shape.size() != 2 ||
            shape[1] != wave[0]) {
            throw DataError(
                file_->path(),
                fmt::format("WAVE has shape [{}], FLUX [{}]: [pixels] and [rows, pixels] expected",
                            fmt::join(wave, ", "), fmt::join(shape, ", ")));
        }
        for (const auto hdu : {ivar_, mask_}) {
            if (hdu >= 0 && file_->image_shape(hdu) != shape) {
                throw DataError(
                    file_->path(),
                    fmt::format("{} has shape [{}], FLUX [{}]", hdu == mask_ ? "MASK" : "IVAR",
                                fmt::join(file_->image_shape(hdu), ", "), fmt::join(shape, ", ")));
            }
        }
        auto wavelength = file_->read_image<double>(file_->find("WAVE"));
        std::transform(wavelength.begin(), wavelength.end(), wavelength.begin(),
                       [](double angstrom) { return std::log10(angstrom); });
        edges_ = sdss_pixel_edges(wavelength, file_->path());
        name_anonymously(file_->path(), shape[0], options, "a stack of MaNGA");
        read_redshifts();
    }

    Spectrum read(const Target& target) const override
    {
        const auto pixels = static_cast<std::int64_t>(edges_.size()) - 1;
        const std::vector<std::int64_t> first{target.rows.front(), 0}, count{1, pixels};
        std::vector<std::uint32_t> mask(static_cast<std::size_t>(pixels));
        if (mask_ >= 0) {
            const auto bits = file_->read_box<std::int64_t>(mask_, first, count);
            std::copy(bits.begin(), bits.end(), mask.begin());
        }
        return resample({edges_, file_->read_box<float>(flux_, first, count),
                         file_->read_box<float>(ivar_, first, count), std::move(mask)});
    }

    void verify_checksums() const override
    {
        for (const auto* name : {"WAVE", "FLUX", "IVAR", "MASK", "Z"}) {
            if (file_->has(name)) {
                file_->verify_checksum(file_->find(name));
            }
        }
    }

private:
    void read_redshifts()
    {
        const auto z = file_->read_image<double>(file_->find("Z"));
        if (z.size() != targets_.size()) {
            throw DataError(file_->path(),
                            fmt::format("Z has {} values, FLUX {} rows", z.size(), targets_.size()));
        }
        for (std::size_t i = 0; i < z.size(); ++i) {
            targets_[i].redshift.z = z[i];
        }
    }

    std::unique_ptr<fits::File> file_;
    int flux_, ivar_, mask_;  // HDUs; -1: none
    std::vector<double> edges_;
};

}  // namespace

std::unique_ptr<SpectrumFile> open_manga(std::unique_ptr<fits::File> file, const SpectrumOptions& options)
{
    return std::make_unique<MangaStack>(std::move(file), options);
}

}  // namespace astroclip::survey
