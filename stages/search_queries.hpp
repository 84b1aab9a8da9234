#pragma once

#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "config/options.hpp"
#include "stages/compute.hpp"
#include "stages/search_catalogue.hpp"

namespace astroclip::search {

struct QueryOptions {
    std::string ids, query_file, positions, cutouts, spectra, model;
    double match_radius_arcsec = 1;
    std::int64_t random = 16;
    bool mean = false;
    bool trust = false;
};
void bind(config::Section options, QueryOptions& o);

// Something to find the neighbours of: a galaxy of the catalogue, one of a file, or the mean of several.
struct Query {
    std::string name;             // "39633345008634465", "cutout.fits #0", "mean of 3"
    std::int64_t object_id = -1;  // of the catalogue or the file; -1: none
    std::int64_t row = -1;        // in the catalogue; -1: it is not from there
    double ra = std::numeric_limits<double>::quiet_NaN(), dec = ra;  // degrees ICRS
    std::vector<float> image{}, spectrum{};                          // unit vectors; empty: it has none

    const std::vector<float>& vector(const std::string& modality) const
    {
        return modality == "image" ? image : spectrum;
    }
};

struct Queries {
    std::vector<Query> all;
    std::vector<std::string> unmatched;  // positions without a galaxy, "ra dec"
    std::int64_t pool = 0;
};

// Those of the options or, where they name none, galaxies of the pool. Collective.
//   ConfigError   an id that is no number; own files without a model
//   MissingInput, DataError   files that cannot be read; an id that is not in the catalogue; no position with
//                 a galaxy; a model that the catalogue was not made with
Queries find_queries(const Catalogue& catalogue, const QueryOptions& options, std::uint64_t seed,
                     const stage::Compute& compute, const comm::World& world);

}  // namespace astroclip::search
