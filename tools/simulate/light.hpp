#pragma once

#include <array>
#include <span>
#include <vector>

#include "tools/simulate/cosmology.hpp"
#include "tools/simulate/galaxy.hpp"
#include "tools/simulate/photometry.hpp"
#include "tools/simulate/templates.hpp"

namespace astroclip::simulate {

// The light of one part of a galaxy as it arrives at the telescope. Both its image and its spectrum are made
// from this.
struct PartLight {
    std::vector<double> continuum;               // 1e-17 erg/s/cm²/Å at Light::wavelength
    std::array<double, line_count> line_flux{};  // 1e-17 erg/s/cm²
};

struct Light {
    std::vector<double> wavelength;  // Å, vacuum, observed frame
    std::array<PartLight, part_count> parts;
};

// Templates mixed by mass, behind the galaxy's own dust and the Milky Way's, at its redshift.
Light light_of(const Galaxy& galaxy, const Templates& templates, const Cosmology& cosmology);

// Flux of one part in each filter, nanomaggy.
std::array<double, 3> band_flux(const Light& light, Part part, double redshift, const Templates& templates,
                                const std::array<Filter, 3>& filters);

// Σ weight · part on a wavelength grid in Å (1e-17 erg/s/cm²/Å): the continuum interpolated, the lines as
// Gaussians of the galaxy's gas and the instrument's σ (in Å) together.
std::vector<double> spectrum_on(std::span<const double> wavelength, const Light& light, const Galaxy& galaxy,
                                const Templates& templates, const std::array<double, part_count>& weights,
                                double instrument_angstrom);

}  // namespace astroclip::simulate
