#pragma once

#include <array>
#include <span>
#include <string>
#include <vector>

namespace astroclip::simulate {

inline constexpr std::array<const char*, 3> bands = {"g", "r", "z"};

// A filter's throughput, tabulated every Angstrom.
class Filter {
public:
    // An ECSV file with the columns wavelength (unit nm or Angstrom, as its header says) and response.
    // Throws MissingInput, DataError.
    static Filter read(const std::string& path);
    double operator()(double wavelength_angstrom) const;  // 0 outside
    double first_angstrom() const { return first_; }

    // AB flux in nanomaggies of a spectrum (1e-17 erg/s/cm²/Å at increasing Å), over the part of the filter
    // that it covers: ∫ f λ T dλ / ∫ c T/λ dλ, by the trapezium rule.
    double flux_nanomaggy(std::span<const double> wavelength, std::span<const double> flux) const;
    // The same for a line (1e-17 erg/s/cm²), whose width does not matter, in the whole filter.
    double line_flux_nanomaggy(double wavelength_angstrom, double flux) const;

private:
    double first_ = 0;
    std::vector<double> response_;
    double reference_ = 0;  // ∫ T/λ dλ of the whole filter
};

double magnitude(double flux_nanomaggy);  // AB: 22.5 − 2.5 log10 flux
double flux_of_magnitude(double magnitude);

}  // namespace astroclip::simulate
