#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>

#include "catalogue/neighbours.hpp"
#include "stages/search_catalogue.hpp"
#include "stages/stage.hpp"

namespace astroclip::search {

// An approximate index of a whole catalogue: a file of inverted lists for each modality of each 262,144 rows,
// the same whatever the number of ranks, and what share of the true ten nearest they find.
class Index {
public:
    // Opens the one in `folder`; where there is none, it is made first, ranks sharing the files, and a call
    // that was interrupted goes on. Collective.
    //   ConfigError      this build has no FAISS
    //   OutputConflict   the folder holds something else, or the index of another catalogue
    Index(const std::string& folder, const Catalogue& catalogue, bool trust, stage::Context& context);

    // Of unit vectors [Q, D], the same on all ranks; `probes` lists of each file are looked at. Collective.
    catalogue::Neighbours nearest(comm::Communicator& ranks, const std::string& modality,
                                  const at::Tensor& queries, std::int64_t k, std::int64_t probes) const;

    const std::string& content_id() const { return content_id_; }
    // {modality: recall@10}, as measured with rows of the catalogue when it was made, with the most probes up
    // to these that were tried.
    nlohmann::json recall(std::int64_t probes) const;

private:
    void make(const Catalogue& catalogue, store::Output& output, stage::Context& context) const;

    std::string folder_, content_id_;
    nlohmann::json files_;
};

}  // namespace astroclip::search
