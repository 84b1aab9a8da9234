#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "catalogue/neighbours.hpp"
#include "stages/search_queries.hpp"
#include "store/publication.hpp"
#include "store/reader.hpp"

namespace astroclip::search {

struct Mode {
    const char* name;
    const char* query;      // modality of the query
    const char* catalogue;  // modality of what is searched
};

// The neighbours in one mode of the queries that have its modality.
struct Found {
    Mode mode;
    std::vector<std::size_t> queries;  // numbers, ascending
    catalogue::Neighbours neighbours;
};

// A line a neighbour in results.csv and results.fits; by query in results.json. With own files queries.h5
// too: groups images and spectra with the datasets of such stores and `query`, the place in results.json.
std::vector<std::string> result_files(const Queries& queries);

// Writes them into the output's folder; `approximate`: how, and what of the true nearest that finds, null if
// exact. What they say of a galaxy is read from the catalogue's small columns.
void write_results(const store::Output& output, const store::Reader& catalogue, const Queries& queries,
                   const std::vector<Found>& found, std::int64_t neighbours,
                   const nlohmann::json& approximate);

}  // namespace astroclip::search
