#pragma once

#include <cstdint>
#include <functional>

namespace astroclip::simulate {

// Calls body(0), …, body(count - 1) on this many threads, in any order. Rethrows the first exception after
// all have stopped.
void parallel_for(std::int64_t count, int threads, const std::function<void(std::int64_t)>& body);

}  // namespace astroclip::simulate
