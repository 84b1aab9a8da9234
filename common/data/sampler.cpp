#include "data/sampler.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <numeric>

#include "core/error.hpp"
#include "core/random.hpp"

namespace astroclip::data {
namespace {

// Fisher-Yates.
void shuffle(std::vector<std::int64_t>& values, Random random)
{
    for (auto left = values.size(); left > 1; --left) {
        std::swap(values[left - 1], values[random.below(left)]);
    }
}

}  // namespace

Sampler::Sampler(std::int64_t samples, std::int64_t global_batch, std::uint64_t seed, Shape shape)
    : samples_(samples), global_batch_(global_batch), seed_(seed), shape_(shape)
{
    if (global_batch < 1 || samples < global_batch) {
        throw ConfigError(
            fmt::format("'batch-size' = {} is more than the {} training samples", global_batch, samples));
    }
}

void Sampler::order_blocks(std::int64_t epoch)
{
    blocks_.resize(static_cast<std::size_t>((samples_ + shape_.block - 1) / shape_.block));
    std::iota(blocks_.begin(), blocks_.end(), 0);
    shuffle(blocks_, Random(seed_, "block-order", static_cast<std::uint32_t>(epoch)));
    window_starts_ = {0};
    std::int64_t place = 0;
    for (std::size_t i = 0; i < blocks_.size(); ++i) {
        place += std::min(shape_.block, samples_ - blocks_[i] * shape_.block);
        if ((i + 1) % static_cast<std::size_t>(shape_.window_blocks) == 0 || i + 1 == blocks_.size()) {
            window_starts_.push_back(place);
        }
    }
    epoch_ = epoch;
    window_ = -1;
}

void Sampler::mix_window(std::int64_t window)
{
    mixed_.clear();
    const auto first = static_cast<std::size_t>(window * shape_.window_blocks);
    const auto last = std::min(blocks_.size(), first + static_cast<std::size_t>(shape_.window_blocks));
    for (auto i = first; i < last; ++i) {
        const auto begin = blocks_[i] * shape_.block;
        for (auto sample = begin; sample < std::min(begin + shape_.block, samples_); ++sample) {
            mixed_.push_back(sample);
        }
    }
    shuffle(mixed_, Random(seed_, "window-order", static_cast<std::uint32_t>(epoch_),
                           static_cast<std::uint64_t>(window)));
    window_ = window;
}

std::vector<std::int64_t> Sampler::slice(std::int64_t step, int rank, int ranks)
{
    if (global_batch_ % ranks != 0) {
        throw ConfigError(
            fmt::format("'batch-size' = {} is not divisible by the {} ranks", global_batch_, ranks));
    }
    if (epoch(step) != epoch_) {
        order_blocks(epoch(step));
    }
    const auto own = global_batch_ / ranks;
    const auto begin = step % steps_per_epoch() * global_batch_ + rank * own;
    std::vector<std::int64_t> samples;
    for (auto place = begin; place < begin + own; ++place) {
        const auto next = std::upper_bound(window_starts_.begin(), window_starts_.end(), place);
        const auto window = next - window_starts_.begin() - 1;
        if (window != window_) {
            mix_window(window);
        }
        samples.push_back(
            mixed_[static_cast<std::size_t>(place - window_starts_[static_cast<std::size_t>(window)])]);
    }
    return samples;
}

}  // namespace astroclip::data
