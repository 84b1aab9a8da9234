#pragma once

#include <string>
#include <vector>

// The calls of NCCL and of CUDA's streams that the communicator makes, on host memory between MPI ranks: each
// is noted, with its arguments, and done at once. As a non-blocking communicator does, a collective answers
// ncclInProgress first and tells its outcome when it is asked. Numbers of collectives count from 0.
namespace astroclip::test {

struct NcclStandIn {
    std::vector<std::string> calls;             // "ncclAllReduce count=6 type=7 op=0 comm=1 stream=2"
    const void *from = nullptr, *to = nullptr;  // of the last collective

    int failure = 6;   // ncclRemoteError: what failing calls end with
    int fail_at = -1;  // the collective of this number fails
    int lost_at = -1;  // it fails on another rank: its call succeeds, the communicator tells of it later
    bool init_fails = false, finalize_fails = false, event_fails = false;
    int collectives = 0;

    int count(const std::string& prefix) const;
};
NcclStandIn& nccl_stand_in();

}  // namespace astroclip::test
