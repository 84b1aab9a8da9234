#include "tools/simulate/parallel.hpp"

#include <atomic>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

namespace astroclip::simulate {

void parallel_for(std::int64_t count, int threads, const std::function<void(std::int64_t)>& body)
{
    std::atomic<std::int64_t> next{0};
    std::exception_ptr failure;
    std::mutex guard;
    const auto work = [&] {
        try {
            for (auto i = next++; i < count; i = next++) {
                body(i);
            }
        } catch (...) {
            const std::lock_guard lock(guard);
            failure = failure ? failure : std::current_exception();
            next = count;
        }
    };
    {
        std::vector<std::jthread> others;
        for (int t = 1; t < threads; ++t) {
            others.emplace_back(work);
        }
        work();
    }
    if (failure) {
        std::rethrow_exception(failure);
    }
}

}  // namespace astroclip::simulate
