#pragma once

#include <cstdint>

namespace astroclip::store {

// One of `count` jobs that fill one store together: it makes the parts whose number leaves `index` when
// divided by `count`; whichever job ends last completes the store.
struct Shard {
    int index = 0, count = 1;

    bool whole() const { return count == 1; }
    bool takes(std::int64_t part) const { return part % count == index; }
};

}  // namespace astroclip::store
