#include "data/loader.hpp"

#include <algorithm>

#include "core/error.hpp"

namespace astroclip::data {

Loader::Loader(const Galaxies& galaxies, std::vector<std::int64_t> members, const Sampler& sampler, int rank,
               int ranks, int ahead)
    : Loader([&galaxies](std::span<const std::int64_t> numbers) { return galaxies.read(numbers); },
             std::move(members), sampler, rank, ranks, ahead)
{
}

Loader::Loader(Read read, std::vector<std::int64_t> members, const Sampler& sampler, int rank, int ranks,
               int ahead)
    : read_(std::move(read)),
      members_(std::move(members)),
      sampler_(sampler),
      rank_(rank),
      ranks_(ranks),
      ahead_(static_cast<std::size_t>(ahead))
{
    sampler_.slice(0, rank, ranks);  // throws here, not in the thread
}

Loader::~Loader() { stop(); }

void Loader::seek(std::int64_t step)
{
    stop();
    stopping_ = false;
    thread_ = std::thread([this, step] { read_ahead(step); });
}

void Loader::stop()
{
    {
        const std::lock_guard lock(mutex_);
        stopping_ = true;
        waiting_.clear();
        failure_ = nullptr;
    }
    changed_.notify_all();
    if (thread_.joinable()) {
        thread_.join();
    }
    waiting_.clear();
}

void Loader::read_ahead(std::int64_t step)
{
    std::unique_lock lock(mutex_);
    for (;; ++step) {
        changed_.wait(lock, [this] { return stopping_ || waiting_.size() < ahead_; });
        if (stopping_) {
            return;
        }
        lock.unlock();
        Batch batch;
        std::exception_ptr failure;
        try {
            auto numbers = sampler_.slice(step, rank_, ranks_);
            for (auto& number : numbers) {
                number = members_[static_cast<std::size_t>(number)];
            }
            batch = read_(numbers);
        } catch (...) {
            failure = std::current_exception();
        }
        lock.lock();
        failure_ = failure;
        if (!failure) {
            waiting_.push_back(std::move(batch));
        }
        changed_.notify_all();
        if (failure) {
            return;
        }
    }
}

Batch Loader::next()
{
    std::unique_lock lock(mutex_);
    if (!thread_.joinable()) {
        throw InternalError("a batch is asked for before the first seek");
    }
    changed_.wait(lock, [this] { return failure_ || !waiting_.empty(); });
    if (waiting_.empty()) {
        std::rethrow_exception(failure_);
    }
    auto batch = std::move(waiting_.front());
    waiting_.pop_front();
    changed_.notify_all();
    return batch;
}

std::vector<Range> in_order(Range range, std::int64_t compute_batch)
{
    std::vector<Range> pieces;
    for (auto first = range.first; first < range.last;) {
        const auto last = std::min(range.last, (first / compute_batch + 1) * compute_batch);
        pieces.push_back({first, last});
        first = last;
    }
    return pieces;
}

std::span<const std::int64_t> share(std::span<const std::int64_t> numbers, std::int64_t step,
                                    std::int64_t global_batch, int rank, int ranks)
{
    const auto size = static_cast<std::int64_t>(numbers.size());
    const auto own = global_batch / ranks;
    const auto first = std::min(size, step * global_batch + rank * own);
    const auto last = std::min(size, first + own);
    return numbers.subspan(static_cast<std::size_t>(first), static_cast<std::size_t>(last - first));
}

}  // namespace astroclip::data
