#include "survey/arms.hpp"

#include <cmath>

namespace astroclip::survey {
namespace {

struct Pixel {
    float flux, ivar;
    std::uint32_t mask;
    bool finite() const { return std::isfinite(flux) && std::isfinite(ivar); }
    bool damaged() const { return mask == 0 && ivar != 0 && !finite(); }
    double weight(bool masked_too) const
    {
        return finite() && ivar > 0 && (masked_too || mask == 0) ? ivar : 0;
    }
};

Pixel pixel(const ArmSpectrum& arm, std::size_t i) { return {arm.flux[i], arm.ivar[i], arm.mask[i]}; }

// Weighted mean of the pixels that cover one bin.
struct Bin {
    int pixels = 0;
    int weighted = 0;
    double weights = 0, flux = 0;
    float only_flux = 0;  // of a bin with one weighted pixel: its own bits, not w f / w
    std::uint32_t all = ~0u, any = 0;

    void add(const Pixel& p, double weight)
    {
        ++pixels;
        all &= p.mask;
        any |= p.mask;
        if (weight > 0) {
            ++weighted;
            weights += weight;
            flux += weight * p.flux;
            only_flux = p.flux;
        }
    }
    float mean() const
    {
        return weighted == 0 ? 0 : weighted == 1 ? only_flux : static_cast<float>(flux / weights);
    }
};

float finite_or_zero(float value) { return std::isfinite(value) ? value : 0; }

}  // namespace

std::vector<double> desi_wavelength()
{
    std::vector<double> wavelength(desi_bins);
    for (int i = 0; i < desi_bins; ++i) {
        wavelength[i] = desi_first_angstrom + desi_step_angstrom * i;
    }
    return wavelength;
}

ArmSpectrum coadd_exposures(std::span<const ArmSpectrum> exposures)
{
    ArmSpectrum coadd = exposures.front();
    for (std::size_t i = 0; exposures.size() > 1 && i < coadd.flux.size(); ++i) {
        Bin bin;
        bool damaged = false;
        for (const auto& exposure : exposures) {
            const auto p = pixel(exposure, i);
            damaged |= p.damaged();
            bin.add(p, p.weight(false));
        }
        if (damaged) {  // left visible to combine_arms
            coadd.flux[i] = coadd.ivar[i] = std::nanf("");
            coadd.mask[i] = 0;
            continue;
        }
        coadd.flux[i] = bin.mean();
        coadd.ivar[i] = static_cast<float>(bin.weights);
        coadd.mask[i] = bin.all;
    }
    return coadd;
}

Spectrum combine_arms(std::span<const ArmSpectrum> arms, ArmRule rule)
{
    std::vector<Bin> bins(desi_bins);
    Spectrum spectrum{std::vector<float>(desi_bins), std::vector<float>(desi_bins),
                      std::vector<std::uint32_t>(desi_bins, no_data_bit)};
    for (const auto& arm : arms) {
        for (std::size_t i = 0; i < arm.flux.size(); ++i) {
            const auto p = pixel(arm, i);
            spectrum.damaged_pixels += p.damaged();
            bins[arm.first_bin + i].add(p, p.weight(rule == ArmRule::current));
        }
    }
    for (int i = 0; i < desi_bins; ++i) {
        const auto& bin = bins[i];
        if (bin.pixels == 0) {
            continue;
        }
        spectrum.flux[i] = bin.mean();
        spectrum.ivar[i] = static_cast<float>(bin.weights);
        spectrum.mask[i] = rule == ArmRule::edr ? bin.all : bin.weights > 0 ? 0 : bin.any;
    }
    if (rule == ArmRule::current) {
        for (const auto& arm : arms) {
            for (std::size_t i = 0; i < arm.flux.size(); ++i) {
                if (bins[arm.first_bin + i].pixels == 1) {
                    spectrum.flux[arm.first_bin + i] = finite_or_zero(arm.flux[i]);
                }
            }
        }
    }
    return spectrum;
}

}  // namespace astroclip::survey
