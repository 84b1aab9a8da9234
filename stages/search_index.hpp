#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>

#include "catalogue/neighbours.hpp"
#include "stages/search_catalogue.hpp"
#include "stages/stage.hpp"

namespace astroclip::search {

struct IndexOptions {
    std::string folder;
    std::int64_t probes = 16, rows = 1 << 18;
};
void bind(config::Section options, IndexOptions& o);

// An approximate index of a whole catalogue: a file of inverted lists for each modality of so many rows, the
// same whatever the number of ranks, and what share of the true ten nearest they find.
class Index {
public:
    // Opens the one in the folder. Where there is none, it is made first under the folder's lock, ranks
    // sharing the files; a call that was stopped goes on. Collective.
    //   ConfigError      this build has no FAISS
    //   OutputConflict   the folder holds something else, or the index of another catalogue
    //   DataError        a file is not as long as its manifest says or, without `trust`, has other contents
    Index(const IndexOptions& o, const Catalogue& catalogue, bool trust, stage::Context& context);
    // The first two of these, before anything is computed. Not collective.
    static void require_usable(const std::string& folder, const Catalogue& catalogue);

    // Of unit vectors [Q, D], the same on all ranks; `probes` lists of each file are looked at. Collective.
    catalogue::Neighbours nearest(comm::Communicator& ranks, const std::string& modality,
                                  const at::Tensor& queries, std::int64_t k) const;

    const std::string& content_id() const { return content_id_; }
    // {"probes", "recall_at_10": {mode: share}}: of the true ten nearest of rows of the catalogue other than
    // themselves, as measured when it was made with the most probes up to these that were tried.
    nlohmann::json facts() const;

private:
    void make(const IndexOptions& o, const Catalogue& catalogue, stage::Context& context) const;

    std::string folder_, content_id_;
    std::int64_t probes_;
    nlohmann::json files_;
};

}  // namespace astroclip::search
