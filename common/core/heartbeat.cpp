#include "core/heartbeat.hpp"

#include <atomic>

#include "core/clock.hpp"

namespace astroclip {
namespace {

std::atomic<const char*> place{"start"};
std::atomic<double> stamp{seconds()};

}  // namespace

void alive(const char* where)
{
    place.store(where, std::memory_order_relaxed);
    stamp.store(seconds(), std::memory_order_relaxed);
}

Heartbeat last_heartbeat() { return {place.load(), seconds() - stamp.load()}; }

}  // namespace astroclip
