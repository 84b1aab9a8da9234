#include "core/memory.hpp"

#include <malloc.h>

#include <limits>

namespace astroclip {

void keep_freed_memory()
{
    mallopt(M_MMAP_MAX, 0);  // large blocks too come from the heap
    mallopt(M_TRIM_THRESHOLD, std::numeric_limits<int>::max());
    mallopt(M_TOP_PAD, 64 << 20);
}

}  // namespace astroclip
