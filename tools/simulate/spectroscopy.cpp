#include "tools/simulate/spectroscopy.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "core/error.hpp"
#include "core/random.hpp"
#include "tools/simulate/fits_file.hpp"
#include "tools/simulate/imaging.hpp"
#include "tools/simulate/light.hpp"
#include "tools/simulate/noise.hpp"

namespace astroclip::simulate {
namespace {

constexpr double usual_r_ivar = 3.2;  // median inverse variance in R: a few minutes of bright time
constexpr double usual_exposure_s = 360;
constexpr double photon_variance =
    0.04;  // of a bin, for each 1e-17 erg/s/cm²/Å of source, at the usual exposure
constexpr double instrument_angstrom = 0.75;  // σ of a line

double median(std::vector<double> values)
{
    const auto middle = values.begin() + static_cast<long>(values.size() / 2);
    std::nth_element(values.begin(), middle, values.end());
    return *middle;
}

// The sky's ivar of one exposure: between two real ones, scaled.
std::vector<double> sky_ivar(const SkyNoise& noise, std::size_t arm, double mix, double scale)
{
    const auto& rows = noise.log_ivar[arm];
    const double place = mix * static_cast<double>(rows.size() - 1);
    const auto first = std::min(static_cast<std::size_t>(place), rows.size() - 1);
    const auto second = std::min(first + 1, rows.size() - 1);
    const double part = place - static_cast<double>(first);
    std::vector<double> ivar(arms[arm].bins);
    for (std::size_t i = 0; i < ivar.size(); ++i) {
        const double a = rows[first][i], b = rows[second][i];
        ivar[i] = std::isfinite(a) && std::isfinite(b) ? scale * std::exp((1 - part) * a + part * b) : 0;
    }
    return ivar;
}

// Bins hit by cosmic rays, and now and then a bad column: wrong flux, usually without ivar.
void mask_bins(Random& random, std::size_t arm, Spectrum& spectrum)
{
    const auto bins = arms[arm].bins;
    const auto spoil = [&](std::size_t first, std::size_t count, std::int32_t bit) {
        const bool without_ivar = random.uniform() < 0.7;
        for (std::size_t i = first; i < std::min(bins, first + count); ++i) {
            spectrum.mask[arm][i] |= bit;
            spectrum.flux[arm][i] += static_cast<float>(random.uniform(2, 40));
            if (without_ivar) {
                spectrum.ivar[arm][i] = 0;
            }
        }
    };
    while (random.uniform() < 0.7) {
        const auto first = random.below(bins);
        spoil(first, 1 + random.below(5), mask_cosmic);
    }
    if (random.uniform() < 0.02) {
        const auto first = random.below(bins);
        spoil(first, 8 + random.below(30), mask_bad_column);
    }
}

// Noise on the noiseless arms.
Spectrum expose(const std::array<std::vector<double>, 3>& light, const SkyNoise& noise, std::uint64_t seed,
                std::string_view purpose, std::uint64_t object, std::uint32_t realization, Exposure exposure)
{
    Random random(seed, purpose, realization, object);
    Noise normal(seed, std::string(purpose) + "-noise", realization, object);
    const double mix = random.uniform(), depth = std::exp(0.25 * random.normal());
    Spectrum spectrum;
    spectrum.exposure_s = usual_exposure_s * depth;
    for (std::size_t a = 0; a < arms.size(); ++a) {
        const auto sky = sky_ivar(noise, a, mix, usual_r_ivar * depth);
        spectrum.flux[a].assign(arms[a].bins, 0);
        spectrum.ivar[a].assign(arms[a].bins, 0);
        spectrum.mask[a].assign(arms[a].bins, 0);
        for (std::size_t i = 0; i < arms[a].bins; ++i) {
            const float draw = exposure == Exposure::noisy ? normal() : 0;
            if (sky[i] > 0) {
                const double variance = 1 / sky[i] + photon_variance / depth * std::max(0.0, light[a][i]);
                spectrum.flux[a][i] = static_cast<float>(light[a][i] + std::sqrt(variance) * draw);
                spectrum.ivar[a][i] = static_cast<float>(1 / variance);
            }
        }
        if (exposure == Exposure::noisy) {
            mask_bins(random, a, spectrum);
        }
    }
    return spectrum;
}

}  // namespace

std::vector<double> wavelength_of(const Arm& arm)
{
    std::vector<double> wavelength(arm.bins);
    for (std::size_t i = 0; i < arm.bins; ++i) {
        wavelength[i] = arm.first_angstrom + bin_angstrom * static_cast<double>(i);
    }
    return wavelength;
}

SkyNoise SkyNoise::read(const std::string& path)
{
    SkyNoise noise;
    auto file = FitsFile::open(path);
    for (std::size_t a = 0; a < arms.size(); ++a) {
        file.move_to(fmt::format("{}_IVAR", arms[a].letter));
        const auto pixels = file.read_image();
        const auto bins = arms[a].bins;
        if (pixels.empty() || pixels.size() % bins != 0) {
            throw DataError(path, fmt::format("{}_IVAR has {} values, rows of {} expected", arms[a].letter,
                                              pixels.size(), bins));
        }
        for (auto row = pixels.begin(); row != pixels.end(); row += static_cast<long>(bins)) {
            noise.log_ivar[a].emplace_back(row, row + static_cast<long>(bins));
        }
    }
    for (std::size_t row = 0; row < noise.log_ivar[1].size(); ++row) {
        const double scale = median(noise.log_ivar[1][row]);
        for (auto& arm : noise.log_ivar) {
            for (auto& value : arm.at(row)) {
                value = std::log(value / scale);
            }
        }
    }
    return noise;
}

Spectrum observe_spectrum(const Galaxy& galaxy, const Population& population, const SkyNoise& noise,
                          std::uint32_t realization, Exposure exposure)
{
    Random random(population.seed(), "spectrograph", realization, static_cast<std::uint64_t>(galaxy.index));
    const double seeing = 1.1 * std::exp(0.12 * random.normal());
    // DESI calibrates on stars, so a point source loses nothing.
    const double star = fibre_fraction(Profile{}, seeing);
    const double common =
        std::exp(0.05 * random.normal()) * std::min(1.0, std::exp(-0.05 * std::abs(random.normal()))) / star;
    const double in_disk = common * fibre_fraction(galaxy.disk_profile, seeing);
    const std::array<double, part_count> weights = {common * fibre_fraction(galaxy.bulge_profile, seeing),
                                                    in_disk, in_disk};

    const auto light = light_of(galaxy, population.templates(), population.cosmology());
    std::array<std::vector<double>, 3> seen;
    for (std::size_t a = 0; a < arms.size(); ++a) {
        seen[a] = spectrum_on(wavelength_of(arms[a]), light, galaxy, population.templates(), weights,
                              instrument_angstrom);
        const double level = 1 + 0.01 * random.normal(), tilt = 0.02 * random.normal();
        const auto bins = static_cast<double>(arms[a].bins);
        for (std::size_t i = 0; i < arms[a].bins; ++i) {
            seen[a][i] *= level + tilt * (static_cast<double>(i) / bins - 0.5);
        }
    }
    return expose(seen, noise, population.seed(), "exposure", static_cast<std::uint64_t>(galaxy.index),
                  realization, exposure);
}

Spectrum observe_sky(std::int64_t number, const Population& population, const SkyNoise& noise,
                     Exposure exposure)
{
    std::array<std::vector<double>, 3> dark;
    for (std::size_t a = 0; a < arms.size(); ++a) {
        dark[a].assign(arms[a].bins, 0);
    }
    return expose(dark, noise, population.seed(), "sky-fibre", static_cast<std::uint64_t>(number), 0,
                  exposure);
}

double median_snr(const Spectrum& spectrum)
{
    constexpr std::size_t bins = 7781;
    std::vector<double> weighted(bins, 0), weight(bins, 0);
    for (std::size_t a = 0; a < arms.size(); ++a) {
        const auto offset =
            static_cast<std::size_t>(std::lround((arms[a].first_angstrom - 3600) / bin_angstrom));
        for (std::size_t i = 0; i < arms[a].bins; ++i) {
            const double ivar = spectrum.mask[a][i] == 0 ? spectrum.ivar[a][i] : 0;
            weighted[offset + i] += ivar * spectrum.flux[a][i];
            weight[offset + i] += ivar;
        }
    }
    for (std::size_t i = 0; i < bins; ++i) {
        weighted[i] = weight[i] > 0 ? weighted[i] / std::sqrt(weight[i]) : 0;
    }
    return median(weighted);
}

Redrock fit_redshift(const Galaxy& galaxy, double snr, std::uint64_t seed, std::uint32_t realization)
{
    Random random(seed, "redrock", realization, static_cast<std::uint64_t>(galaxy.index));
    const double signal = std::max(snr, 0.05);
    Redrock fit;
    fit.zerr = (1 + galaxy.redshift) * 1e-4 / signal;
    fit.z = galaxy.redshift + fit.zerr * random.normal();
    fit.pixels = 7900 + static_cast<std::int64_t>(random.below(60));
    fit.chi2 = static_cast<double>(fit.pixels) * (1 + 0.02 * random.normal());
    fit.deltachi2 = 1500 * signal * signal * std::exp(0.5 * random.normal());
    if (random.uniform() < std::exp(-3 * signal)) {
        fit.z = random.uniform(0.0, 1.6);
        fit.deltachi2 = random.uniform(0, 12);
        fit.zwarn = fit.deltachi2 < 9 ? zwarn_small_delta_chi2 : 0;
    }
    return fit;
}

}  // namespace astroclip::simulate
