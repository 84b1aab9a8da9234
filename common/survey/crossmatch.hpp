#pragma once

#include <cstdint>
#include <vector>

namespace astroclip::survey {

// Objects of one catalogue: ids and, for matching on the sky, positions in degrees ICRS.
struct Sources {
    std::vector<std::int64_t> object_id;
    std::vector<double> ra, dec;
};

struct Match {
    std::int64_t first = 0, second = 0;  // rows in the two catalogues
    double separation_arcsec = 0;
    bool operator==(const Match&) const = default;
};

// Rows of equal object_id, in the order of the first catalogue. Ids are unique in each (as in a store). The
// separation is that of the two positions, which may be far apart: the ids decide.
std::vector<Match> match_by_id(const Sources& first, const Sources& second);

// Pairs that are each other's nearest neighbour and at most `radius_arcsec` apart, in the order of the first
// catalogue. Exact over the whole sphere (a tree of unit vectors knows neither poles nor RA 0 nor tile
// borders). Of equally near ones the smaller object_id is nearer.
std::vector<Match> match_on_sky(const Sources& first, const Sources& second, double radius_arcsec);

}  // namespace astroclip::survey
