#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <exception>
#include <functional>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include "data/batches.hpp"
#include "data/sampler.hpp"

namespace astroclip::data {

// This rank's batches of training, in the order of the steps, read ahead by a thread of its own.
//
//   Loader loader(galaxies, galaxies.members(false), Sampler(...), ranks.rank(), ranks.size());
//   loader.seek(step);
//   for (;;) train(loader.next());
class Loader {
public:
    using Read = std::function<Batch(std::span<const std::int64_t>)>;  // galaxies by number

    // `members`: numbers of the galaxies that are sampled; `ahead`: steps that wait in memory at most.
    // What `read` reads from, or `galaxies`, must outlive the loader. Throws ConfigError as Sampler does.
    Loader(Read read, std::vector<std::int64_t> members, const Sampler& sampler, int rank, int ranks,
           int ahead = 2);
    Loader(const Galaxies& galaxies, std::vector<std::int64_t> members, const Sampler& sampler, int rank,
           int ranks, int ahead = 2);
    ~Loader();
    Loader(const Loader&) = delete;
    Loader& operator=(const Loader&) = delete;

    void seek(std::int64_t step);  // the next batch is that of `step`; starts reading
    Batch next();                  // waits for it; throws what reading threw

    const Sampler& sampler() const { return sampler_; }

private:
    void stop();
    void read_ahead(std::int64_t step);

    Read read_;
    std::vector<std::int64_t> members_;
    Sampler sampler_;
    int rank_, ranks_;
    std::size_t ahead_;

    std::thread thread_;
    std::mutex mutex_;
    std::condition_variable changed_;
    std::deque<Batch> waiting_;
    std::exception_ptr failure_;
    bool stopping_ = false;
};

// The pieces of `range` cut at the multiples of `compute_batch`, in order: what embedding computes with, so
// that a galaxy is always in the same batch, whatever the ranks. (A rank's range begins at such a multiple:
// store::Writer's unit_rows.)
//
//   for (const auto piece : data::in_order(rows, compute_batch))
//       model.embed_images(data::padded(galaxies.read(piece).images, compute_batch));
std::vector<Range> in_order(Range range, std::int64_t compute_batch);

// The same for validation: piece `step` of this rank, [step·batch + its share], of numbers that all ranks
// know; the last batch may be short, and a rank's piece of it empty.
std::span<const std::int64_t> share(std::span<const std::int64_t> numbers, std::int64_t step,
                                    std::int64_t global_batch, int rank, int ranks);

}  // namespace astroclip::data
