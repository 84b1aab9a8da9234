#pragma once

#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <vector>

#include "config/options.hpp"
#include "stages/compute.hpp"
#include "stages/search_catalogue.hpp"
#include "store/schema.hpp"

namespace astroclip::search {

struct QueryOptions {
    std::string ids, query_file, positions, cutouts, spectra, model;
    double match_radius_arcsec = 1;
    std::int64_t random = 0;  // 0: 16, if there is nothing else to search for
    bool mean = false;
    bool trust = false;
};
void bind(config::Section options, QueryOptions& o);

// How many of the examples have an image, how many a spectrum.
struct Examples {
    std::int64_t image = 0, spectrum = 0;
};

// Something to find the neighbours of: a galaxy of the catalogue, one of a file, or the mean of several.
struct Query {
    // "39633345008634465", "cutout.fits #0", "mean of 3", "mean of 502: 2 images and 500 spectra"
    std::string name;
    std::int64_t object_id = -1;  // of the catalogue or the file; -1: none
    std::int64_t row = -1;        // in the catalogue; -1: it is not from there
    double ra = std::numeric_limits<double>::quiet_NaN(), dec = ra;  // degrees ICRS
    std::vector<float> image{}, spectrum{};                          // unit vectors; empty: it has none
    std::optional<Examples> examples{};                              // of a mean

    const std::vector<float>& vector(const std::string& modality) const
    {
        return modality == "image" ? image : spectrum;
    }
};

// Own images or spectra as they were read, for people to see beside what was found.
struct OwnPixels {
    store::Schema schema{};             // of a store that would hold them
    std::vector<std::int64_t> query{};  // numbers in Queries::all, ascending; not more than the first 1000
    std::vector<float> flux{}, ivar{};  // on rank 0, row after row; images have no ivar
};

struct Queries {
    std::vector<Query> all;
    std::vector<std::string> unmatched;  // "5": no object has this id; "150.1 2.2": no galaxy is near
    std::int64_t pool = 0;
    OwnPixels cutouts{}, spectra{};
};

// Those of the options or, where none is set, galaxies of the pool. Collective.
//   ConfigError   an id that is no number; own files without a model; random beside other queries
//   MissingInput, DataError   files that cannot be read or hold no query; no id and no position with a
//                 galaxy; a model that the catalogue was not made with
Queries find_queries(const Catalogue& catalogue, const QueryOptions& options, std::uint64_t seed,
                     const stage::Compute& compute, const comm::World& world);

// "ids that are not in the catalogue: 7 (5, 6, 8, 9, 10, ...)", and the same of positions.
std::string describe_unmatched(const Queries& queries, const QueryOptions& options);

}  // namespace astroclip::search
