#include "support/nccl_stand_in/nccl_stand_in.hpp"

#include <c10/util/BFloat16.h>
#include <c10/util/Half.h>
#include <cuda_runtime_api.h>
#include <fmt/format.h>
#include <mpi.h>
#include <nccl.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>

struct ncclComm {
    int number = 0;
    ncclResult_t outcome = ncclSuccess;  // of the call that is in progress
    ncclResult_t later = ncclSuccess;    // of what runs on a stream
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
        case ncclUint8:
            return MPI_UINT8_T;
        case ncclFloat16:
        case ncclBfloat16:
            return MPI_UINT16_T;  // to be moved; summed as float32
        default:
            std::abort();
    }
}

// reduce(from, to, type), with 16-bit numbers as float32. `from` has `in` numbers, `to` has `out`.
template <typename Half, typename Reduce>
void reduce_wide(const void* from, void* to, std::size_t in, std::size_t out, const Reduce& reduce)
{
    const auto* numbers = static_cast<const Half*>(from);
    const std::vector<float> wide(numbers, numbers + in);
    std::vector<float> result(out);
    reduce(wide.data(), result.data(), MPI_FLOAT);
    std::copy(result.begin(), result.end(), static_cast<Half*>(to));
}

template <typename Reduce>
void reduce_as(ncclDataType_t type, const void* from, void* to, std::size_t in, std::size_t out,
               const Reduce& reduce)
{
    if (type == ncclFloat16) return reduce_wide<c10::Half>(from, to, in, out, reduce);
    if (type == ncclBfloat16) return reduce_wide<c10::BFloat16>(from, to, in, out, reduce);
    reduce(from == to ? MPI_IN_PLACE : from, to, type_of(type));
}

MPI_Op op_of(ncclRedOp_t op)
{
    if (op == ncclSum) return MPI_SUM;
    if (op == ncclMax) return MPI_MAX;
    std::abort();
}

struct Buffers {
    const void* from;
    void* to;
};

// Notes the collective and does it, unless it is the one that fails.
template <typename Do>
ncclResult_t collective(const std::string& name, std::size_t count, ncclDataType_t type, Buffers buffers,
                        ncclComm_t comm, cudaStream_t stream, const Do& work, const std::string& more = "")
{
    note(fmt::format("{} count={} type={}{} comm={} stream={}", name, count, static_cast<int>(type), more,
                     comm->number, number(stream)));
    auto& stand_in = nccl_stand_in();
    stand_in.from = buffers.from;
    stand_in.to = buffers.to;
    const auto failure = static_cast<ncclResult_t>(stand_in.failure);
    const auto place = stand_in.collectives++;
    const bool fails = place == stand_in.fail_at, lost = place == stand_in.lost_at;
    comm->outcome = fails ? failure : ncclSuccess;
    comm->later = lost ? failure : comm->outcome;
    comm->asked = 0;
    if (!fails && !lost) {
        work(static_cast<int>(count));
    }
    return ncclInProgress;
}

}  // namespace
}  // namespace astroclip::test

using namespace astroclip::test;

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
    static int made = 0;
    note(fmt::format("ncclCommInitRankConfig size={} rank={} id={} blocking={}", size, rank, id.internal[9],
                     config->blocking));
    *comm = new ncclComm{++made};
    if (nccl_stand_in().init_fails) {
        (*comm)->outcome = static_cast<ncclResult_t>(nccl_stand_in().failure);
    }
    return ncclInProgress;
}
// In progress twice, then the outcome of the call, and after that of what it put on a stream.
ncclResult_t ncclCommGetAsyncError(ncclComm_t comm, ncclResult_t* state)
{
    const auto asked = comm->asked++;
    *state = asked < 2 ? ncclInProgress : asked == 2 ? comm->outcome : comm->later;
    return ncclSuccess;
}
ncclResult_t ncclCommFinalize(ncclComm_t comm)
{
    note("ncclCommFinalize");
    comm->asked = 0;
    if (nccl_stand_in().finalize_fails) {
        comm->outcome = static_cast<ncclResult_t>(nccl_stand_in().failure);
    }
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
    return collective(
        "ncclBroadcast", n, type, {from, to}, comm, stream,
        [&](int count) {
            if (from != to) std::abort();
            MPI_Bcast(to, count, type_of(type), root, MPI_COMM_WORLD);
        },
        fmt::format(" root={}", root));
}
ncclResult_t ncclAllReduce(const void* from, void* to, std::size_t n, ncclDataType_t type, ncclRedOp_t op,
                           ncclComm_t comm, cudaStream_t stream)
{
    return collective(
        "ncclAllReduce", n, type, {from, to}, comm, stream,
        [&](int count) {
            reduce_as(type, from, to, n, n, [&](const void* in, void* out, MPI_Datatype as) {
                MPI_Allreduce(in, out, count, as, op_of(op), MPI_COMM_WORLD);
            });
        },
        fmt::format(" op={}", static_cast<int>(op)));
}
ncclResult_t ncclAllGather(const void* from, void* to, std::size_t n, ncclDataType_t type, ncclComm_t comm,
                           cudaStream_t stream)
{
    return collective("ncclAllGather", n, type, {from, to}, comm, stream, [&](int count) {
        MPI_Allgather(from, count, type_of(type), to, count, type_of(type), MPI_COMM_WORLD);
    });
}
ncclResult_t ncclReduceScatter(const void* from, void* to, std::size_t n, ncclDataType_t type, ncclRedOp_t op,
                               ncclComm_t comm, cudaStream_t stream)
{
    return collective(
        "ncclReduceScatter", n, type, {from, to}, comm, stream,
        [&](int count) {
            int ranks = 1;
            MPI_Comm_size(MPI_COMM_WORLD, &ranks);
            const auto all = n * static_cast<std::size_t>(ranks);
            reduce_as(type, from, to, all, n, [&](const void* in, void* out, MPI_Datatype as) {
                MPI_Reduce_scatter_block(in, out, count, as, op_of(op), MPI_COMM_WORLD);
            });
        },
        fmt::format(" op={}", static_cast<int>(op)));
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
    return nccl_stand_in().event_fails ? cudaErrorInvalidValue : cudaSuccess;
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
