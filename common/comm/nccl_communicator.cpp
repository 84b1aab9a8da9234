#include <ATen/ATen.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <fmt/format.h>
#include <nccl.h>

#include <chrono>
#include <cstring>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

#include "comm/communicator.hpp"
#include "comm/room_for_all.hpp"
#include "comm/watchdog.hpp"
#include "core/heartbeat.hpp"

// NCCL backend: one rank a GPU. Communicators are non-blocking, so every call may return ncclInProgress and
// is followed until it is done; an error aborts the communicator (never destroys it) and is thrown. An error
// that comes up while a stream runs, and no call is made, is found by the watchdog. All collectives run on
// one stream, since those of one communicator must run in the same order on all ranks; events order it with
// the stream that computes.
namespace astroclip::comm {
namespace {

void check_cuda(cudaError_t code, const char* call)
{
    if (code == cudaSuccess) {
        return;
    }
    const auto text = fmt::format("{} failed: {}", call, cudaGetErrorString(code));
    if (code == cudaErrorECCUncorrectable || code == cudaErrorDevicesUnavailable) {  // a GPU is lost
        throw PeerLost(text);
    }
    throw InternalError(text);
}

// A rank, the network or a GPU is lost, and another try may do; anything else is a wrong call of ours.
[[noreturn]] void fail(ncclResult_t result, const char* call, const std::string& reason = "")
{
    const auto text = fmt::format("{} failed: {} {}", call, ncclGetErrorString(result), reason);
    if (result == ncclRemoteError || result == ncclSystemError || result == ncclUnhandledCudaError) {
        throw PeerLost(text);
    }
    throw InternalError(text);
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

class Event {
public:
    Event() { check_cuda(cudaEventCreateWithFlags(&event_, cudaEventDisableTiming), "cudaEventCreate"); }
    ~Event() { cudaEventDestroy(event_); }  // CUDA releases it once it has happened
    Event(const Event&) = delete;
    Event& operator=(const Event&) = delete;

    void record(cudaStream_t stream) { check_cuda(cudaEventRecord(event_, stream), "cudaEventRecord"); }
    // What is queued on the stream from now on comes after the event.
    void hold(cudaStream_t stream) const
    {
        check_cuda(cudaStreamWaitEvent(stream, event_, 0), "cudaStreamWaitEvent");
    }

    cudaEvent_t get() const { return event_; }

private:
    cudaEvent_t event_ = nullptr;
};

// What comes on stream `after` waits for what is queued on stream `before`.
void order(cudaStream_t before, cudaStream_t after)
{
    Event event;
    event.record(before);
    event.hold(after);
}

// Makes the current stream wait for a collective.
class StreamWork : public Work {
public:
    StreamWork(std::vector<at::Tensor> tensors, cudaStream_t stream) : tensors_(std::move(tensors))
    {
        done_.record(stream);
    }
    // Tensors that nobody waited for must not be freed, and their memory used, while they are still sent.
    ~StreamWork() override
    {
        if (!waited_) {
            cudaStreamWaitEvent(c10::cuda::getCurrentCUDAStream(), done_.get(), 0);
        }
    }
    void wait() override
    {
        done_.hold(c10::cuda::getCurrentCUDAStream());
        waited_ = true;
    }

private:
    std::vector<at::Tensor> tensors_;
    Event done_;
    bool waited_ = false;
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
        world.on_root([&] {
            if (const auto result = ncclGetUniqueId(&id); result != ncclSuccess) {
                fail(result, "ncclGetUniqueId");
            }
        });
        const auto bytes = world.broadcast(std::string(id.internal, sizeof id.internal));
        std::memcpy(id.internal, bytes.data(), sizeof id.internal);

        ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
        config.blocking = 0;
        call("ncclCommInitRankConfig",
             [&] { return ncclCommInitRankConfig(&comm_, world.size(), id, world.rank(), &config); });
    }

    ~NcclCommunicator() override
    {
        const std::lock_guard lock(calling_);
        if (comm_ == nullptr) {
            return;
        }
        if (std::uncaught_exceptions() >
            exceptions_) {  // the others are elsewhere: finalizing would wait for them
            ncclCommAbort(comm_);
            comm_ = nullptr;
            return;
        }
        // Finalize is non-blocking too; a communicator in error was aborted and is null here.
        auto state = ncclCommFinalize(comm_);
        while (state == ncclInProgress && ncclCommGetAsyncError(comm_, &state) == ncclSuccess) {
            std::this_thread::sleep_for(std::chrono::milliseconds(1));
        }
        state == ncclSuccess ? ncclCommDestroy(comm_) : ncclCommAbort(comm_);
        comm_ = nullptr;
    }

    int rank() const override { return world_.rank(); }
    int size() const override { return world_.size(); }
    at::Device device() const override { return device_; }
    std::string backend() const override { return "nccl"; }

    void broadcast(at::Tensor& tensor, int root) override
    {
        require_own(tensor);
        in_order("ncclBroadcast", [&](cudaStream_t stream) {
            return ncclBroadcast(tensor.const_data_ptr(), tensor.mutable_data_ptr(), count(tensor),
                                 type_of(tensor.scalar_type()), root, comm_, stream);
        });
    }

    void all_reduce_sum(at::Tensor& tensor) override
    {
        require_own(tensor);
        in_order("ncclAllReduce", [&](cudaStream_t stream) { return sum(tensor, stream); });
    }

    std::unique_ptr<Work> all_reduce_sum_async(at::Tensor& tensor) override
    {
        require_own(tensor);
        order(current(), lane_);
        call("ncclAllReduce", [&] { return sum(tensor, lane_); });
        return std::make_unique<StreamWork>(std::vector{tensor}, lane_);
    }

    at::Tensor all_gather(const at::Tensor& tensor) override
    {
        require_own(tensor);
        auto all = room_for_all(tensor, size());
        in_order("ncclAllGather", [&](cudaStream_t stream) { return gather(tensor, all, stream); });
        return all;
    }

    std::unique_ptr<Work> all_gather_async(const at::Tensor& tensor, at::Tensor& all) override
    {
        require_own(tensor);
        all = room_for_all(tensor, size());
        order(current(), lane_);
        call("ncclAllGather", [&] { return gather(tensor, all, lane_); });
        return std::make_unique<StreamWork>(std::vector{tensor, all}, lane_);
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
        in_order("ncclReduceScatter", [&](cudaStream_t stream) {
            return ncclReduceScatter(tensor.const_data_ptr(), own.mutable_data_ptr(), count(own),
                                     type_of(tensor.scalar_type()), ncclSum, comm_, stream);
        });
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

    ncclResult_t sum(at::Tensor& tensor, cudaStream_t stream)
    {
        return ncclAllReduce(tensor.const_data_ptr(), tensor.mutable_data_ptr(), count(tensor),
                             type_of(tensor.scalar_type()), ncclSum, comm_, stream);
    }

    ncclResult_t gather(const at::Tensor& tensor, const at::Tensor& all, cudaStream_t stream)
    {
        return ncclAllGather(tensor.const_data_ptr(), all.mutable_data_ptr(), count(tensor),
                             type_of(tensor.scalar_type()), comm_, stream);
    }

    // After what is queued on the current stream, and before what will be.
    template <typename Collective>
    void in_order(const char* name, const Collective& collective)
    {
        order(current(), lane_);
        call(name, [&] { return collective(lane_); });
        order(lane_, current());
    }

    // Calls NCCL, and waits while the call is in progress (its enqueueing, not the work on the stream).
    template <typename Call>
    void call(const char* name, const Call& nccl)
    {
        alive(name);
        const std::lock_guard lock(calling_);
        auto result = nccl();
        while (result == ncclInProgress) {
            std::this_thread::sleep_for(std::chrono::microseconds(50));
            if (const auto asked = ncclCommGetAsyncError(comm_, &result); asked != ncclSuccess) {
                result = asked;
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
        fail(result, name, reason);
    }

    // For the watchdog. Whoever is calling NCCL meets the error itself.
    std::string fault()
    {
        const std::unique_lock lock(calling_, std::try_to_lock);
        if (!lock || comm_ == nullptr) {
            return "";
        }
        auto state = ncclSuccess;
        const auto asked = ncclCommGetAsyncError(comm_, &state);
        const auto result = asked == ncclSuccess ? state : asked;
        return result == ncclSuccess || result == ncclInProgress
                   ? ""
                   : fmt::format("NCCL lost a collective: {} {}", ncclGetErrorString(result),
                                 ncclGetLastError(comm_));
    }

    const World& world_;
    at::Device device_;
    c10::cuda::CUDAGuard guard_;
    c10::cuda::CUDAStream lane_;
    std::mutex calling_;  // a communicator is one thread's at a time
    ncclComm_t comm_ = nullptr;
    int exceptions_ = std::uncaught_exceptions();
    Watched watched_{[this] { return fault(); }};  // the last: gone before what it looks at
};

}  // namespace

std::unique_ptr<Communicator> make_nccl_communicator(const World& world, at::Device device)
{
    return std::make_unique<NcclCommunicator>(world, device);
}

bool nccl_built() { return true; }

}  // namespace astroclip::comm
