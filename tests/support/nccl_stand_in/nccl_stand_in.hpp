#pragma once

#include <string>
#include <vector>

// The calls of NCCL and of CUDA's streams that the communicator makes, on host memory between MPI ranks: each
// is noted, with its arguments, and done at once. As a non-blocking communicator does, a collective answers
// ncclInProgress first and tells its outcome when it is asked.
namespace astroclip::test {

struct NcclStandIn {
    std::vector<std::string> calls;  // "ncclAllReduce count=6 type=7 stream=2"
    int fail_at = -1;                // the collective of this number ends with ncclRemoteError
    int collectives = 0;

    int count(const std::string& prefix) const;
};
NcclStandIn& nccl_stand_in();

}  // namespace astroclip::test
