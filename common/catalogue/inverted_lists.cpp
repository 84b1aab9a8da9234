#include "catalogue/inverted_lists.hpp"

#include <ATen/ATen.h>
#include <faiss/IndexFlat.h>
#include <faiss/IndexIVFFlat.h>
#include <faiss/impl/AuxIndexStructures.h>
#include <faiss/index_io.h>
#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <memory>

#include "core/error.hpp"
#include "core/heartbeat.hpp"

namespace astroclip::catalogue {
namespace {

// FAISS asks it in each round of k-means, while there is one of these.
class Heartbeats {
public:
    Heartbeats() { faiss::InterruptCallback::instance = std::make_unique<Alive>(); }
    ~Heartbeats() { faiss::InterruptCallback::clear_instance(); }
    Heartbeats(const Heartbeats&) = delete;
    Heartbeats& operator=(const Heartbeats&) = delete;

private:
    struct Alive : faiss::InterruptCallback {
        bool want_interrupt() override
        {
            alive("finding the centroids of inverted lists");
            return false;
        }
    };
};

}  // namespace

bool has_inverted_lists() { return true; }

void write_inverted_lists(const std::string& path, const at::Tensor& vectors, const at::Tensor& rows,
                          std::int64_t lists, std::uint64_t seed)
{
    const auto all = vectors.contiguous();
    faiss::IndexFlatIP centroids(all.size(1));
    faiss::IndexIVFFlat index(&centroids, static_cast<std::size_t>(all.size(1)),
                              static_cast<std::size_t>(lists), faiss::METRIC_INNER_PRODUCT);
    index.cp.seed = static_cast<int>(seed % std::numeric_limits<int>::max());
    index.cp.spherical = true;
    index.cp.niter = 10;
    index.cp.max_points_per_centroid = 64;  // more of both cost time and change little
    index.cp.min_points_per_centroid = 1;
    {
        const Heartbeats heartbeats;
        index.train(all.size(0), all.const_data_ptr<float>());
    }
    constexpr std::int64_t at_once = 1 << 14;
    for (std::int64_t first = 0; first < all.size(0); first += at_once) {
        alive("filling inverted lists");
        index.add_with_ids(std::min(at_once, all.size(0) - first),
                           all.const_data_ptr<float>() + first * all.size(1),
                           rows.const_data_ptr<std::int64_t>() + first);
    }
    try {
        faiss::write_index(&index, path.c_str());
    } catch (const std::exception& error) {
        throw IoError(path, fmt::format("cannot be written: {}", error.what()));
    }
}

Neighbours search_inverted_lists(const std::string& path, const at::Tensor& queries, std::int64_t k,
                                 std::int64_t probes)
{
    std::unique_ptr<faiss::Index> read;
    try {
        read.reset(faiss::read_index(path.c_str(), faiss::IO_FLAG_MMAP | faiss::IO_FLAG_READ_ONLY));
    } catch (const std::exception& error) {
        throw DataError(path, fmt::format("is no index of FAISS: {}", error.what()));
    }
    auto* const index = dynamic_cast<faiss::IndexIVFFlat*>(read.get());
    if (index == nullptr || index->d != queries.size(1)) {
        throw DataError(path,
                        fmt::format("holds {} of vectors of {} numbers; an IndexIVFFlat of {} is expected",
                                    index == nullptr ? "another index" : "lists", read->d, queries.size(1)));
    }
    index->nprobe = static_cast<std::size_t>(std::min(probes, static_cast<std::int64_t>(index->nlist)));
    const auto asked = queries.contiguous();
    Neighbours found{at::empty({asked.size(0), k}, at::kLong), at::empty({asked.size(0), k}, at::kFloat)};
    index->search(asked.size(0), asked.const_data_ptr<float>(), k, found.score.mutable_data_ptr<float>(),
                  found.row.mutable_data_ptr<std::int64_t>());
    found.score.masked_fill_(found.row < 0, -std::numeric_limits<float>::infinity());
    return found;
}

}  // namespace astroclip::catalogue
