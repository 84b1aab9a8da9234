#include <ATen/ATen.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <fmt/format.h>
#include <nccl.h>

#include <chrono>
#include <cstring>
#include <thread>

#include "comm/communicator.hpp"
#include "core/heartbeat.hpp"

// NCCL backend: one rank a GPU. Communicators are non-blocking, so every call may return ncclInProgress and
// is followed until it is done; an error aborts the communicator (never destroys it) and is thrown as
// PeerLost.
namespace astroclip::comm {
namespace {

void check_cuda(cudaError_t code, const char* call)
{
    if (code != cudaSuccess) {
        throw PeerLost(fmt::format("{} failed: {}", call, cudaGetErrorString(code)));
    }
}

ncclDataType_t type_of(at::ScalarType type)
{
    switch (type) {
        case at::kDouble:
            return ncclFloat64;
        case at::kFloat:
            return ncclFloat32;
        case at::kHalf:
            return ncclFloat16;
        case at::kBFloat16:
            return ncclBfloat16;
        case at::kLong:
            return ncclInt64;
        case at::kByte:
            return ncclUint8;
        default:
            throw InternalError(fmt::format("NCCL cannot move tensors of type {}", c10::toString(type)));
    }
}

// Makes the current stream wait for what was queued on the communication stream.
class StreamWork : public Work {
public:
    StreamWork(at::Tensor tensor, cudaEvent_t done) : tensor_(std::move(tensor)), done_(done) {}
    ~StreamWork() override { cudaEventDestroy(done_); }
    void wait() override
    {
        check_cuda(cudaStreamWaitEvent(c10::cuda::getCurrentCUDAStream(), done_, 0), "cudaStreamWaitEvent");
    }

private:
    at::Tensor tensor_;  // kept alive until the sum is done
    cudaEvent_t done_;
};

class NcclCommunicator : public Communicator {
public:
    NcclCommunicator(const World& world, at::Device device)
        : world_(world),
          device_(device),
          guard_(device),
          lane_(c10::cuda::getStreamFromPool(true, device.index()))
    {
        ncclUniqueId id{};
        world.on_root([&] { require(ncclGetUniqueId(&id), "ncclGetUniqueId"); });
        const auto bytes = world.broadcast(std::string(id.internal, sizeof id.internal));
        std::memcpy(id.internal, bytes.data(), sizeof id.internal);

        ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
        config.blocking = 0;
        follow(ncclCommInitRankConfig(&comm_, world.size(), id, world.rank(), &config),
               "ncclCommInitRankConfig");
    }

    ~NcclCommunicator() override
    {
        if (comm_ == nullptr) {
            return;
        }
        // Finalize is non-blocking too; a communicator in error was aborted and is null here.
        auto state = ncclCommFinalize(comm_);
        while (state == ncclInProgress && ncclCommGetAsyncError(comm_, &state) == ncclSuccess) {
            std::this_thread::sleep_for(std::chrono::milliseconds(1));
        }
        state == ncclSuccess ? ncclCommDestroy(comm_) : ncclCommAbort(comm_);
    }

    int rank() const override { return world_.rank(); }
    int size() const override { return world_.size(); }
    at::Device device() const override { return device_; }
    std::string backend() const override { return "nccl"; }

    void broadcast(at::Tensor& tensor, int root) override
    {
        require_own(tensor);
        follow(ncclBroadcast(tensor.const_data_ptr(), tensor.mutable_data_ptr(), count(tensor),
                             type_of(tensor.scalar_type()), root, comm_, current()),
               "ncclBroadcast");
    }

    void all_reduce_sum(at::Tensor& tensor) override { sum_on(tensor, current()); }

    std::unique_ptr<Work> all_reduce_sum_async(at::Tensor& tensor) override
    {
        cudaEvent_t ready = nullptr, done = nullptr;
        check_cuda(cudaEventCreateWithFlags(&ready, cudaEventDisableTiming), "cudaEventCreate");
        check_cuda(cudaEventCreateWithFlags(&done, cudaEventDisableTiming), "cudaEventCreate");
        check_cuda(cudaEventRecord(ready, current()), "cudaEventRecord");
        check_cuda(cudaStreamWaitEvent(lane_, ready, 0), "cudaStreamWaitEvent");
        sum_on(tensor, lane_);
        check_cuda(cudaEventRecord(done, lane_), "cudaEventRecord");
        cudaEventDestroy(ready);  // released by CUDA once it has happened
        return std::make_unique<StreamWork>(tensor, done);
    }

    at::Tensor all_gather(const at::Tensor& tensor) override
    {
        require_own(tensor);
        auto shape = tensor.sizes().vec();
        shape.at(0) *= size();
        auto all = at::empty(shape, tensor.options());
        follow(ncclAllGather(tensor.const_data_ptr(), all.mutable_data_ptr(), count(tensor),
                             type_of(tensor.scalar_type()), comm_, current()),
               "ncclAllGather");
        return all;
    }

    at::Tensor reduce_scatter_sum(const at::Tensor& tensor) override
    {
        require_own(tensor);
        auto shape = tensor.sizes().vec();
        if (shape.at(0) % size() != 0) {
            throw InternalError("reduce_scatter of rows that the ranks do not divide");
        }
        shape[0] /= size();
        auto own = at::empty(shape, tensor.options());
        follow(ncclReduceScatter(tensor.const_data_ptr(), own.mutable_data_ptr(), count(own),
                                 type_of(tensor.scalar_type()), ncclSum, comm_, current()),
               "ncclReduceScatter");
        return own;
    }

    void barrier() override
    {
        check_cuda(cudaStreamSynchronize(current()), "cudaStreamSynchronize");
        world_.barrier();
    }

private:
    cudaStream_t current() const { return c10::cuda::getCurrentCUDAStream(device_.index()); }

    static std::size_t count(const at::Tensor& tensor) { return static_cast<std::size_t>(tensor.numel()); }

    void require_own(const at::Tensor& tensor) const
    {
        if (tensor.device() != device_ || !tensor.is_contiguous()) {
            throw InternalError("the NCCL backend takes contiguous tensors on the rank's own GPU");
        }
    }

    void sum_on(at::Tensor& tensor, cudaStream_t stream)
    {
        require_own(tensor);
        follow(ncclAllReduce(tensor.const_data_ptr(), tensor.mutable_data_ptr(), count(tensor),
                             type_of(tensor.scalar_type()), ncclSum, comm_, stream),
               "ncclAllReduce");
    }

    static void require(ncclResult_t result, const char* call)
    {
        if (result != ncclSuccess) {
            throw PeerLost(fmt::format("{} failed: {}", call, ncclGetErrorString(result)));
        }
    }

    // Waits while the call is in progress (its enqueueing, not the work on the stream).
    void follow(ncclResult_t result, const char* call)
    {
        alive(call);
        while (result == ncclInProgress) {
            std::this_thread::sleep_for(std::chrono::microseconds(50));
            if (ncclCommGetAsyncError(comm_, &result) != ncclSuccess) {
                break;
            }
        }
        if (result == ncclSuccess) {
            return;
        }
        const std::string reason = comm_ ? ncclGetLastError(comm_) : "";
        if (comm_) {
            ncclCommAbort(comm_);
            comm_ = nullptr;
        }
        throw PeerLost(fmt::format("{} failed: {} {}", call, ncclGetErrorString(result), reason));
    }

    const World& world_;
    at::Device device_;
    c10::cuda::CUDAGuard guard_;
    c10::cuda::CUDAStream lane_;
    ncclComm_t comm_ = nullptr;
};

}  // namespace

std::unique_ptr<Communicator> make_nccl_communicator(const World& world, at::Device device)
{
    return std::make_unique<NcclCommunicator>(world, device);
}

bool nccl_built() { return true; }

}  // namespace astroclip::comm
