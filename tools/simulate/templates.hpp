#pragma once

#include <array>
#include <string>
#include <vector>

#include "tools/simulate/photometry.hpp"

namespace astroclip::simulate {

inline constexpr std::size_t template_count = 5;
inline constexpr std::size_t line_count = 15;
using Mix = std::array<double, template_count>;  // solar masses formed in each template

// The templates of kcorrect (Blanton & Roweis 2007, AJ 133, 734), per solar mass formed, seen from 10 pc:
// 0 old and metal-rich behind dust, 1 burst, 2 star-forming, 3 old, 4 after a burst. data/README.md says what
// was changed.
struct Templates {
    struct Line {
        std::string name;
        double wavelength;  // Å, vacuum
        Mix flux;           // erg/s/cm²
    };

    std::vector<double> wavelength;                             // Å, vacuum, rest frame, increasing
    std::array<std::vector<double>, template_count> continuum;  // erg/s/cm²/Å
    std::array<Line, line_count> lines;
    Mix surviving;              // stellar mass left of the mass formed
    Mix metallicity;            // mass fraction of metals
    Mix young_300, young_1000;  // part of the mass formed within the last 300 Myr, 1 Gyr
    Mix r_magnitude;            // absolute AB magnitude in the rest-frame r band

    // Throws MissingInput, DataError.
    static Templates read(const std::string& path, const Filter& r);
};

}  // namespace astroclip::simulate
