#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "catalogue/neighbours.hpp"
#include "comm/world.hpp"
#include "store/reader.hpp"

namespace astroclip::search {

// What one pass over the small columns can find.
struct Wanted {
    std::vector<std::int64_t> ids;  // rows that bear them
    std::vector<double> ra, dec;    // degrees ICRS: the nearest row to each position
    double radius_arcsec = 1;       // that is no farther than this
    std::int64_t random = 0;  // so many of the pool, chosen by a hash of their ids; first those that have
    std::uint64_t seed = 0;   // both modalities
};
struct FoundRows {
    std::vector<std::int64_t> of_ids, of_positions;  // in the order asked for; -1: there is none
    std::vector<double> separation_arcsec;           // of the positions
    std::vector<std::int64_t> random;
    std::int64_t pool = 0;  // galaxies that are searched
};

// A store of embeddings, read in pieces: no more of it is in memory than a piece, whatever its size.
class Catalogue {
public:
    Catalogue(const std::string& path, bool trust);

    // Searches only the galaxies that the pairs hold out.
    void restrict_to_test(const store::Reader& pairs);

    // Each rank looks at its share; all get everything. Collective.
    FoundRows find(const Wanted& wanted, const comm::World& world) const;

    // Rows [first, first + count) in one modality, "image" or "spectrum"; usable are those of the pool that
    // have it.
    catalogue::CatalogueRows rows(const std::string& modality, std::int64_t first, std::int64_t count) const;
    // This rank's share of them.
    catalogue::CatalogueShard shard(const std::string& modality, const comm::World& world) const;

    const store::Reader& reader() const { return reader_; }

private:
    bool in_pool(std::int64_t object_id) const;

    store::Reader reader_;
    std::optional<std::vector<std::int64_t>> pool_;  // ids, ascending; nothing: all
};

}  // namespace astroclip::search
