#pragma once

namespace astroclip {

// A named place where tests can kill the process as a power cut would (SIGKILL).
// ASTROCLIP_FAULT="publish.rename:3" kills the third time the point is reached, "publish.rename:3@1" on rank
// 1 only. Costs a comparison when unset.
void fault_point(const char* name);
void set_fault_rank(int rank);

}  // namespace astroclip
