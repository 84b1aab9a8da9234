#include "support/nccl_stand_in/nccl_stand_in.hpp"

#include <cuda_runtime_api.h>
#include <fmt/format.h>
#include <mpi.h>
#include <nccl.h>

#include <cstring>

struct ncclComm {
    int size = 1;
    ncclResult_t outcome = ncclSuccess;
    int asked = 0;
};

namespace astroclip::test {

NcclStandIn& nccl_stand_in()
{
    static NcclStandIn one;
    return one;
}

int NcclStandIn::count(const std::string& prefix) const
{
    int found = 0;
    for (const auto& call : calls) {
        found += call.starts_with(prefix) ? 1 : 0;
    }
    return found;
}

namespace {

void note(std::string call) { nccl_stand_in().calls.push_back(std::move(call)); }

long number(const void* stream_or_event) { return reinterpret_cast<long>(stream_or_event); }

MPI_Datatype type_of(ncclDataType_t type)
{
    switch (type) {
        case ncclFloat64:
            return MPI_DOUBLE;
        case ncclFloat32:
            return MPI_FLOAT;
        case ncclInt64:
            return MPI_INT64_T;
        default:
            return MPI_BYTE;
    }
}

// Notes the collective and does it, unless it is the one that fails.
template <typename Do>
ncclResult_t collective(const char* name, std::size_t count, ncclDataType_t type, ncclComm_t comm,
                        cudaStream_t stream, const Do& work)
{
    note(fmt::format("{} count={} type={} stream={}", name, count, static_cast<int>(type), number(stream)));
    auto& stand_in = nccl_stand_in();
    const bool fails = stand_in.collectives++ == stand_in.fail_at;
    comm->outcome = fails ? ncclRemoteError : ncclSuccess;
    comm->asked = 0;
    if (!fails) {
        work(static_cast<int>(count), type_of(type));
    }
    return ncclInProgress;
}

}  // namespace
}  // namespace astroclip::test

using astroclip::test::collective;
using astroclip::test::note;
using astroclip::test::number;

extern "C" {

ncclResult_t ncclGetUniqueId(ncclUniqueId* id)
{
    note("ncclGetUniqueId");
    std::memset(id->internal, 7, sizeof id->internal);
    return ncclSuccess;
}
ncclResult_t ncclCommInitRankConfig(ncclComm_t* comm, int size, ncclUniqueId id, int rank,
                                    ncclConfig_t* config)
{
    note(fmt::format("ncclCommInitRankConfig size={} rank={} id={} blocking={}", size, rank, id.internal[9],
                     config->blocking));
    *comm = new ncclComm{size};
    return ncclInProgress;
}
ncclResult_t ncclCommGetAsyncError(ncclComm_t comm, ncclResult_t* state)
{
    *state = comm->asked++ < 2 ? ncclInProgress : comm->outcome;
    return ncclSuccess;
}
ncclResult_t ncclCommFinalize(ncclComm_t comm)
{
    note("ncclCommFinalize");
    comm->asked = 0;
    return ncclInProgress;
}
ncclResult_t ncclCommDestroy(ncclComm_t comm)
{
    note("ncclCommDestroy");
    delete comm;
    return ncclSuccess;
}
ncclResult_t ncclCommAbort(ncclComm_t comm)
{
    note("ncclCommAbort");
    delete comm;
    return ncclSuccess;
}
const char* ncclGetErrorString(ncclResult_t) { return "remote process exited"; }
const char* ncclGetLastError(ncclComm_t) { return "(stand-in)"; }

ncclResult_t ncclBroadcast(const void* from, void* to, std::size_t n, ncclDataType_t type, int root,
                           ncclComm_t comm, cudaStream_t stream)
{
    return collective("ncclBroadcast", n, type, comm, stream, [&](int count, MPI_Datatype of) {
        if (from != to) std::abort();
        MPI_Bcast(to, count, of, root, MPI_COMM_WORLD);
    });
}
ncclResult_t ncclAllReduce(const void* from, void* to, std::size_t n, ncclDataType_t type, ncclRedOp_t,
                           ncclComm_t comm, cudaStream_t stream)
{
    return collective("ncclAllReduce", n, type, comm, stream, [&](int count, MPI_Datatype of) {
        MPI_Allreduce(from == to ? MPI_IN_PLACE : from, to, count, of, MPI_SUM, MPI_COMM_WORLD);
    });
}
ncclResult_t ncclAllGather(const void* from, void* to, std::size_t n, ncclDataType_t type, ncclComm_t comm,
                           cudaStream_t stream)
{
    return collective("ncclAllGather", n, type, comm, stream, [&](int count, MPI_Datatype of) {
        MPI_Allgather(from, count, of, to, count, of, MPI_COMM_WORLD);
    });
}
ncclResult_t ncclReduceScatter(const void* from, void* to, std::size_t n, ncclDataType_t type, ncclRedOp_t,
                               ncclComm_t comm, cudaStream_t stream)
{
    return collective("ncclReduceScatter", n, type, comm, stream, [&](int count, MPI_Datatype of) {
        MPI_Reduce_scatter_block(from, to, count, of, MPI_SUM, MPI_COMM_WORLD);
    });
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned)
{
    static std::intptr_t last = 100;
    *event = reinterpret_cast<cudaEvent_t>(++last);
    note("cudaEventCreate");
    return cudaSuccess;
}
cudaError_t cudaEventDestroy(cudaEvent_t)
{
    note("cudaEventDestroy");
    return cudaSuccess;
}
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream)
{
    note(fmt::format("cudaEventRecord event={} stream={}", number(event), number(stream)));
    return cudaSuccess;
}
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned)
{
    note(fmt::format("cudaStreamWaitEvent stream={} event={}", number(stream), number(event)));
    return cudaSuccess;
}
cudaError_t cudaStreamSynchronize(cudaStream_t stream)
{
    note(fmt::format("cudaStreamSynchronize stream={}", number(stream)));
    return cudaSuccess;
}
const char* cudaGetErrorString(cudaError_t) { return "stand-in"; }

}  // extern "C"
