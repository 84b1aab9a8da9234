#include "tools/simulate/light.hpp"

#include <algorithm>
#include <cmath>

#include "tools/simulate/dust.hpp"

namespace astroclip::simulate {
namespace {

double transmission(double magnitudes) { return std::exp(-0.4 * 2.302585092994046 * magnitudes); }

}  // namespace

Light light_of(const Galaxy& galaxy, const Templates& templates, const Cosmology& cosmology)
{
    const double stretch = 1 + galaxy.redshift;
    const double distance_10pc = cosmology.luminosity_distance_mpc(galaxy.redshift) * 1e5;
    const double line_scale = 1e17 / (distance_10pc * distance_10pc);
    const double scale = line_scale / stretch;

    Light light;
    const auto bins = templates.wavelength.size();
    light.wavelength.resize(bins);
    for (auto& part : light.parts) {
        part.continuum.assign(bins, 0);
    }
    for (std::size_t i = 0; i < bins; ++i) {
        const double rest = templates.wavelength[i], observed = rest * stretch;
        light.wavelength[i] = observed;
        const double foreground = scale * transmission(galaxy.ebv * milky_way(observed));
        const double own = calzetti(rest);
        for (std::size_t p = 0; p < part_count; ++p) {
            const auto& mass = galaxy.mass[p];
            double sum = 0;
            for (std::size_t k = 0; k < template_count; ++k) {
                sum += mass[k] * templates.continuum[k][i];
            }
            light.parts[p].continuum[i] =
                sum > 0 ? sum * foreground * transmission(galaxy.attenuation[p] * own) : 0;
        }
    }
    for (std::size_t l = 0; l < line_count; ++l) {
        const auto& line = templates.lines[l];
        const double foreground =
            line_scale * transmission(galaxy.ebv * milky_way(line.wavelength * stretch));
        for (std::size_t p = 0; p < part_count; ++p) {
            double sum = 0;
            for (std::size_t k = 0; k < template_count; ++k) {
                sum += galaxy.mass[p][k] * line.flux[k];
            }
            light.parts[p].line_flux[l] = sum * foreground * galaxy.line_strength[l] *
                                          transmission(galaxy.attenuation[p] * calzetti(line.wavelength));
        }
    }
    return light;
}

std::array<double, 3> band_flux(const Light& light, Part part, double redshift, const Templates& templates,
                                const std::array<Filter, 3>& filters)
{
    std::array<double, 3> flux{};
    for (std::size_t b = 0; b < filters.size(); ++b) {
        flux[b] = filters[b].flux_nanomaggy(light.wavelength, light.parts[part].continuum);
        for (std::size_t l = 0; l < line_count; ++l) {
            flux[b] += filters[b].line_flux_nanomaggy(templates.lines[l].wavelength * (1 + redshift),
                                                      light.parts[part].line_flux[l]);
        }
    }
    return flux;
}

std::vector<double> spectrum_on(std::span<const double> wavelength, const Light& light, const Galaxy& galaxy,
                                const Templates& templates, const std::array<double, part_count>& weights,
                                double instrument_angstrom)
{
    const auto bins = light.wavelength.size();
    std::vector<double> total(bins, 0);
    for (std::size_t p = 0; p < part_count; ++p) {
        for (std::size_t i = 0; i < bins; ++i) {
            total[i] += weights[p] * light.parts[p].continuum[i];
        }
    }
    std::vector<double> flux(wavelength.size());
    std::size_t cell = 0;
    for (std::size_t i = 0; i < wavelength.size(); ++i) {
        while (cell + 2 < bins && light.wavelength[cell + 1] < wavelength[i]) {
            ++cell;
        }
        const double part =
            (wavelength[i] - light.wavelength[cell]) / (light.wavelength[cell + 1] - light.wavelength[cell]);
        flux[i] = (1 - part) * total[cell] + part * total[cell + 1];
    }
    for (std::size_t l = 0; l < line_count; ++l) {
        double strength = 0;
        for (std::size_t p = 0; p < part_count; ++p) {
            strength += weights[p] * light.parts[p].line_flux[l];
        }
        const double centre = templates.lines[l].wavelength * (1 + galaxy.redshift);
        const double sigma = std::hypot(instrument_angstrom, centre * galaxy.line_width_kms / 299792.458);
        const auto first = std::lower_bound(wavelength.begin(), wavelength.end(), centre - 6 * sigma);
        for (auto w = first; w != wavelength.end() && *w < centre + 6 * sigma; ++w) {
            const double x = (*w - centre) / sigma;
            flux[static_cast<std::size_t>(w - wavelength.begin())] +=
                strength / (sigma * 2.5066282746310002) * std::exp(-0.5 * x * x);
        }
    }
    return flux;
}

}  // namespace astroclip::simulate
