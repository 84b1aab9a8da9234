#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "core/random.hpp"
#include "tools/simulate/cosmology.hpp"
#include "tools/simulate/galaxy.hpp"
#include "tools/simulate/light.hpp"

namespace astroclip::simulate {

// The galaxies of the survey: bright ones (r < 20.3) up to z 0.6 and, about one in ten, luminous red ones
// around z 0.47. A galaxy is a function of (seed, index) alone.
class Population {
public:
    // `data`: the folder with galaxy-templates.fits and decam2014-{g,r,z}.ecsv. Throws MissingInput,
    // DataError.
    Population(const std::string& data, std::uint64_t seed);

    Galaxy draw(std::int64_t index) const;  // without its place
    const Templates& templates() const { return templates_; }
    const Cosmology& cosmology() const { return cosmology_; }
    const std::array<Filter, 3>& filters() const { return filters_; }
    std::uint64_t seed() const { return seed_; }

private:
    bool try_draw(Random& random, Galaxy& galaxy) const;
    void give_stars(Random& random, Galaxy& galaxy) const;
    void give_lines(Random& random, Galaxy& galaxy) const;
    void give_shape(Random& random, Galaxy& galaxy) const;
    void measure_stars(Galaxy& galaxy) const;

    std::uint64_t seed_;
    Cosmology cosmology_;
    std::array<Filter, 3> filters_;
    Templates templates_;
};

// Places for `count` galaxies at 1,500 per square degree, at least 18 arcsec apart, on a field around RA 0,
// Dec 0, with bricks of 0.25 degrees and objids counted in each.
std::vector<Place> places(std::int64_t count, std::uint64_t seed);

}  // namespace astroclip::simulate
