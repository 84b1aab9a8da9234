#include "tools/simulate/photometry.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <sstream>

#include "core/error.hpp"

namespace astroclip::simulate {
namespace {

// f_ν of 1 nanomaggy is 3.631e-29 erg/s/cm²/Hz; f_λ in 1e-17, c in Å/s.
constexpr double nanomaggies = 1e-17 / 2.99792458e18 / 3.631e-29;

struct Curve {
    std::vector<double> wavelength, response;
};

Curve read_curve(const std::string& path)
{
    std::ifstream file(path);
    if (!file) {
        throw MissingInput(path, "filter curve cannot be read");
    }
    Curve curve;
    double unit_angstrom = 0;
    for (std::string line; std::getline(file, line);) {
        if (line.starts_with("#")) {
            if (line.find("name: wavelength, unit: nm") != std::string::npos) {
                unit_angstrom = 10;
            } else if (line.find("name: wavelength, unit: Angstrom") != std::string::npos) {
                unit_angstrom = 1;
            }
            continue;
        }
        std::istringstream row(line);
        double wavelength = 0, response = 0;
        if (row >> wavelength >> response) {
            curve.wavelength.push_back(wavelength * unit_angstrom);
            curve.response.push_back(response);
        }
    }
    if (unit_angstrom == 0) {
        throw DataError(path, "its header gives no unit of wavelength, nm or Angstrom expected");
    }
    if (curve.wavelength.size() < 2 || !std::is_sorted(curve.wavelength.begin(), curve.wavelength.end())) {
        throw DataError(path, "no increasing wavelengths found");
    }
    return curve;
}

double interpolate(const Curve& curve, double wavelength)
{
    const auto above = std::upper_bound(curve.wavelength.begin(), curve.wavelength.end(), wavelength);
    if (above == curve.wavelength.begin() || above == curve.wavelength.end()) {
        return above == curve.wavelength.end() && wavelength == curve.wavelength.back()
                   ? curve.response.back()
                   : 0;
    }
    const auto i = static_cast<std::size_t>(above - curve.wavelength.begin());
    const double part =
        (wavelength - curve.wavelength[i - 1]) / (curve.wavelength[i] - curve.wavelength[i - 1]);
    return (1 - part) * curve.response[i - 1] + part * curve.response[i];
}

}  // namespace

Filter Filter::read(const std::string& path)
{
    const auto curve = read_curve(path);
    Filter filter;
    filter.first_ = std::ceil(curve.wavelength.front());
    for (double w = filter.first_; w <= curve.wavelength.back(); w += 1) {
        filter.response_.push_back(std::max(0.0, interpolate(curve, w)));
        filter.reference_ += filter.response_.back() / w;
    }
    return filter;
}

double Filter::operator()(double wavelength_angstrom) const
{
    const double place = wavelength_angstrom - first_;
    if (place < 0 || place >= static_cast<double>(response_.size() - 1)) {
        return 0;
    }
    const auto cell = static_cast<std::size_t>(place);
    const double part = place - static_cast<double>(cell);
    return (1 - part) * response_[cell] + part * response_[cell + 1];
}

double Filter::flux_nanomaggy(std::span<const double> wavelength, std::span<const double> flux) const
{
    double light = 0, reference = 0;
    double last_light = 0, last_reference = 0;
    for (std::size_t i = 0; i < wavelength.size(); ++i) {
        const double response = (*this)(wavelength[i]);
        const double here = flux[i] * wavelength[i] * response;
        const double reference_here = response / wavelength[i];
        if (i > 0) {
            const double width = 0.5 * (wavelength[i] - wavelength[i - 1]);
            light += width * (here + last_light);
            reference += width * (reference_here + last_reference);
        }
        last_light = here;
        last_reference = reference_here;
    }
    return reference > 0 ? light / reference * nanomaggies : 0;
}

double Filter::line_flux_nanomaggy(double wavelength_angstrom, double flux) const
{
    return flux * wavelength_angstrom * (*this)(wavelength_angstrom) / reference_ * nanomaggies;
}

double magnitude(double flux_nanomaggy) { return 22.5 - 2.5 * std::log10(flux_nanomaggy); }
double flux_of_magnitude(double magnitude) { return std::pow(10, 0.4 * (22.5 - magnitude)); }

}  // namespace astroclip::simulate
