#pragma once

#include <cstdint>
#include <vector>

namespace astroclip::data {

// In which order training sees its samples: a pure function of (seed, epoch), so that its state is the step.
// Blocks of neighbouring samples are shuffled, then the samples within a window of several blocks: nearly as
// good as a full shuffle, while what is read together lies together on disk. Each epoch sees every sample
// once, but for the last incomplete batch.
class Sampler {
public:
    struct Shape {
        std::int64_t block = 64;          // samples
        std::int64_t window_blocks = 16;  // blocks that are mixed
    };

    // Throws ConfigError if there are fewer samples than one global batch needs.
    Sampler(std::int64_t samples, std::int64_t global_batch, std::uint64_t seed, Shape shape);
    Sampler(std::int64_t samples, std::int64_t global_batch, std::uint64_t seed)
        : Sampler(samples, global_batch, seed, Shape{})
    {
    }

    std::int64_t global_batch() const { return global_batch_; }
    std::int64_t steps_per_epoch() const { return samples_ / global_batch_; }
    std::int64_t epoch(std::int64_t step) const { return step / steps_per_epoch(); }

    // Samples [rank·n, (rank+1)·n) of the global batch of a step, n = global_batch/ranks. Throws ConfigError
    // if the ranks do not divide the global batch. Keeps the last window it made: cheap for steps in order.
    std::vector<std::int64_t> slice(std::int64_t step, int rank, int ranks);

private:
    void order_blocks(std::int64_t epoch);
    void mix_window(std::int64_t window);

    std::int64_t samples_, global_batch_;
    std::uint64_t seed_;
    Shape shape_;
    std::int64_t epoch_ = -1, window_ = -1;
    std::vector<std::int64_t> blocks_;  // block numbers in this epoch's order
    std::vector<std::int64_t>
        window_starts_;  // place in the epoch of each window's first sample; one more at the end
    std::vector<std::int64_t> mixed_;  // this window's samples
};

}  // namespace astroclip::data
