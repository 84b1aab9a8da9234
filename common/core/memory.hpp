#pragma once

namespace astroclip {

// Memory that is freed stays with the process. Training and embedding ask for the same large blocks in every
// step; handed back to the system, each comes anew as pages to be mapped and zeroed, ten times slower than
// the memory itself. To be called before the first large allocation.
void keep_freed_memory();

}  // namespace astroclip
