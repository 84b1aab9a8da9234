#include "survey/resample.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

namespace astroclip::survey {
namespace {

// Sums over the good pixels that overlap one bin.
struct Bin {
    double length = 0;    // Angstrom
    double flux = 0;      // times length
    double variance = 0;  // times length squared
};

double lower_edge(int bin) { return desi_first_angstrom + desi_step_angstrom * (bin - 0.5); }

int bin_at(double wavelength)
{
    const auto bin = std::floor((wavelength - lower_edge(0)) / desi_step_angstrom);
    return static_cast<int>(std::clamp(bin, 0.0, desi_bins - 1.0));
}

void add(std::vector<Bin>& bins, double from, double to, double flux, double ivar)
{
    for (int j = bin_at(from), last = bin_at(to); j <= last; ++j) {
        const auto length = std::min(to, lower_edge(j + 1)) - std::max(from, lower_edge(j));
        if (length > 0) {
            bins[j].length += length;
            bins[j].flux += length * flux;
            bins[j].variance += length * length / ivar;
        }
    }
}

}  // namespace

Spectrum resample(const PixelSpectrum& pixels)
{
    std::vector<Bin> bins(desi_bins);
    Spectrum spectrum{std::vector<float>(desi_bins), std::vector<float>(desi_bins),
                      std::vector<std::uint32_t>(desi_bins, no_data_bit)};
    for (std::size_t i = 0; i < pixels.flux.size(); ++i) {
        const auto flux = pixels.flux[i], ivar = pixels.ivar[i];
        if (pixels.mask[i] != 0 || ivar == 0) {
            continue;
        }
        if (!std::isfinite(flux) || !std::isfinite(ivar)) {
            ++spectrum.damaged_pixels;
        } else if (ivar > 0) {
            add(bins, pixels.edges[i], pixels.edges[i + 1], flux, ivar);
        }
    }
    for (int j = 0; j < desi_bins; ++j) {
        const auto& bin = bins[j];
        if (bin.length >= desi_step_angstrom / 2) {
            const auto ivar = bin.length * bin.length / bin.variance;
            spectrum.flux[j] = static_cast<float>(bin.flux / bin.length);
            spectrum.ivar[j] = static_cast<float>(std::min(ivar, double{std::numeric_limits<float>::max()}));
            spectrum.mask[j] = 0;
        }
    }
    return spectrum;
}

}  // namespace astroclip::survey
