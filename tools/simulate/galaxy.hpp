#pragma once

#include <array>
#include <cstdint>
#include <string>

#include "tools/simulate/templates.hpp"

namespace astroclip::simulate {

// Where and under which name a galaxy stands in the surveys.
struct Place {
    int release = 0, brickid = 0, objid = 0;
    std::string brickname;
    double ra = 0, dec = 0;  // degrees, ICRS
    // DESI's packing: objid in bits 0-21, brickid in 22-41, release in 42-57.
    std::int64_t targetid() const
    {
        return objid + (static_cast<std::int64_t>(brickid) << 22) +
               (static_cast<std::int64_t>(release) << 42);
    }
};

// The light of a galaxy in three parts that share a centre: a Sérsic bulge (or the whole of an elliptical),
// an exponential disk, and young stars in knots along the disk's arms.
enum Part : std::size_t { bulge, disk, knots, part_count };

struct Profile {
    double radius_arcsec = 0;  // of half the light, along the major axis
    double sersic = 1;
    double axis_ratio = 1;
};

enum class Morphology { rex, exponential, de_vaucouleurs, sersic };  // as the Tractor would fit it
const char* tractor_type(Morphology morphology);                     // REX, EXP, DEV, SER

// A galaxy as it is: all that images and spectra are made from.
struct Galaxy {
    std::int64_t index = 0;
    Place place;
    double redshift = 0;
    double ebv = 0;  // E(B−V) of the Milky Way before it, mag
    bool red = false;

    std::array<Mix, part_count> mass{};             // M⊙ formed
    std::array<double, part_count> attenuation{};   // its own dust, A_V in mag
    std::array<float, line_count> line_strength{};  // factor on the templates' lines
    double line_width_kms = 0;                      // σ of its gas

    Profile bulge_profile, disk_profile;
    double position_angle = 0;  // radians, from north through east
    int knot_count = 0;
    double arm_pitch = 0.3;  // radians

    std::array<std::array<double, 3>, part_count>
        part_flux{};               // g, r, z nanomaggy at the telescope, no noise
    std::array<double, 3> flux{};  // their sum
    double absolute_r = 0;         // rest frame, free of dust

    // What the mix of templates says of its stars.
    double log_mass = 0;        // log10 of the stellar mass, M⊙
    double metallicity = 0;     // mass-weighted
    double star_formation = 0;  // M⊙/yr, mean over the last 300 Myr
    double age_gyr = 0;         // mass-weighted, from the parts younger than 0.3 and 1 Gyr

    Morphology morphology = Morphology::sersic;
    double half_light_arcsec = 0;  // of all parts together in r, circularised
    double fitted_sersic = 1;
    double axis_ratio = 1;  // of the part that dominates in r
};

}  // namespace astroclip::simulate
