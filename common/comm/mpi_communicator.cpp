#include <ATen/ATen.h>
#include <fmt/format.h>

#include <condition_variable>
#include <deque>
#include <exception>
#include <functional>
#include <mutex>
#include <thread>

#include "comm/communicator.hpp"
#include "comm/room_for_all.hpp"
#include "core/heartbeat.hpp"

namespace astroclip::comm {
namespace {

constexpr std::int64_t largest_count = 1 << 30;  // MPI counts are ints

MPI_Datatype sum_type(at::ScalarType type)
{
    switch (type) {
        case at::kDouble:
            return MPI_DOUBLE;
        case at::kFloat:
            return MPI_FLOAT;
        case at::kLong:
            return MPI_INT64_T;
        case at::kByte:
            return MPI_UINT8_T;
        default:
            throw InternalError(fmt::format("MPI cannot sum tensors of type {}", c10::toString(type)));
    }
}

void require_host(const at::Tensor& tensor)
{
    if (!tensor.is_cpu() || !tensor.is_contiguous()) {
        throw InternalError("the MPI backend takes contiguous host tensors");
    }
}

// Sums in place. 16-bit types have no MPI sum: they go as float32 and are rounded once.
void all_reduce(at::Tensor& tensor, MPI_Comm comm)
{
    require_host(tensor);
    if (tensor.scalar_type() == at::kBFloat16 || tensor.scalar_type() == at::kHalf) {
        auto wide = tensor.to(at::kFloat);
        all_reduce(wide, comm);
        tensor.copy_(wide);
        return;
    }
    const auto type = sum_type(tensor.scalar_type());
    auto* data = static_cast<char*>(tensor.mutable_data_ptr());
    for (std::int64_t at = 0; at < tensor.numel(); at += largest_count) {
        const auto count = static_cast<int>(std::min(largest_count, tensor.numel() - at));
        check(MPI_Allreduce(MPI_IN_PLACE, data + at * tensor.element_size(), count, type, MPI_SUM, comm),
              "MPI_Allreduce");
    }
}

// Open MPI makes no progress outside its calls, so a collective that shall overlap with computation needs a
// thread of its own. It works on its own communicator, in the order of submission, which is the same on all
// ranks.
class Lane {
public:
    explicit Lane(MPI_Comm parent) { check(MPI_Comm_dup(parent, &comm_), "MPI_Comm_dup"); }

    ~Lane()
    {
        {
            const std::lock_guard lock(mutex_);
            ending_ = true;
        }
        wake_.notify_all();
        if (thread_.joinable()) {
            thread_.join();
        }
        int finalized = 0;
        MPI_Finalized(&finalized);
        if (!finalized) {
            MPI_Comm_free(&comm_);
        }
    }

    MPI_Comm comm() const { return comm_; }

    std::uint64_t submit(std::function<void()> work)
    {
        const std::lock_guard lock(mutex_);
        if (!thread_.joinable()) {
            thread_ = std::thread([this] { run(); });
        }
        queue_.push_back(std::move(work));
        wake_.notify_all();
        return ++submitted_;
    }

    void wait(std::uint64_t ticket)
    {
        std::unique_lock lock(mutex_);
        wake_.wait(lock, [&] { return done_ >= ticket || failure_; });
        if (failure_) {
            std::rethrow_exception(failure_);
        }
    }

private:
    void run()
    {
        std::unique_lock lock(mutex_);
        for (;;) {
            wake_.wait(lock, [this] { return ending_ || !queue_.empty(); });
            if (queue_.empty()) {
                return;
            }
            const auto work = std::move(queue_.front());
            queue_.pop_front();
            lock.unlock();
            std::exception_ptr failure;
            try {
                work();
            } catch (...) {
                failure = std::current_exception();
            }
            lock.lock();
            failure_ = failure_ ? failure_ : failure;
            ++done_;
            wake_.notify_all();
        }
    }

    MPI_Comm comm_ = MPI_COMM_NULL;
    std::thread thread_;
    std::mutex mutex_;
    std::condition_variable wake_;
    std::deque<std::function<void()>> queue_;
    std::uint64_t submitted_ = 0, done_ = 0;
    std::exception_ptr failure_;
    bool ending_ = false;
};

class LaneWork : public Work {
public:
    LaneWork(Lane& lane, std::uint64_t ticket, const char* what) : lane_(lane), ticket_(ticket), what_(what)
    {
    }
    void wait() override
    {
        alive(what_);
        lane_.wait(ticket_);
    }

private:
    Lane& lane_;
    std::uint64_t ticket_;
    const char* what_;
};

// A contiguous MPI type of one row, so that counts are rows and do not overflow.
class RowType {
public:
    explicit RowType(std::size_t bytes)
    {
        check(MPI_Type_contiguous(static_cast<int>(bytes), MPI_BYTE, &type_), "MPI_Type_contiguous");
        check(MPI_Type_commit(&type_), "MPI_Type_commit");
    }
    ~RowType() { MPI_Type_free(&type_); }
    operator MPI_Datatype() const { return type_; }

private:
    MPI_Datatype type_;
};

void gather(const at::Tensor& tensor, const at::Tensor& all, MPI_Comm comm)
{
    if (tensor.numel() > 0) {
        const auto rows = tensor.size(0);
        const RowType row(tensor.nbytes() / static_cast<std::size_t>(rows));
        check(MPI_Allgather(tensor.const_data_ptr(), static_cast<int>(rows), row, all.mutable_data_ptr(),
                            static_cast<int>(rows), row, comm),
              "MPI_Allgather");
    }
}

class MpiCommunicator : public Communicator {
public:
    explicit MpiCommunicator(const World& world) : world_(world), lane_(world.handle()) {}

    int rank() const override { return world_.rank(); }
    int size() const override { return world_.size(); }
    at::Device device() const override { return at::kCPU; }
    std::string backend() const override { return "mpi"; }

    void broadcast(at::Tensor& tensor, int root) override
    {
        alive("broadcast of a tensor");
        require_host(tensor);
        auto* data = static_cast<char*>(tensor.mutable_data_ptr());
        const auto bytes = static_cast<std::int64_t>(tensor.nbytes());
        for (std::int64_t at = 0; at < bytes; at += largest_count) {
            const auto count = static_cast<int>(std::min(largest_count, bytes - at));
            check(MPI_Bcast(data + at, count, MPI_BYTE, root, world_.handle()), "MPI_Bcast");
        }
    }

    void all_reduce_sum(at::Tensor& tensor) override
    {
        alive("all_reduce of a tensor");
        all_reduce(tensor, world_.handle());
    }

    std::unique_ptr<Work> all_reduce_sum_async(at::Tensor& tensor) override
    {
        const auto ticket =
            lane_.submit([tensor, comm = lane_.comm()]() mutable { all_reduce(tensor, comm); });
        return std::make_unique<LaneWork>(lane_, ticket, "all_reduce of gradients");
    }

    at::Tensor all_gather(const at::Tensor& tensor) override
    {
        alive("all_gather of a tensor");
        require_host(tensor);
        auto all = room_for_all(tensor, size());
        gather(tensor, all, world_.handle());
        return all;
    }

    std::unique_ptr<Work> all_gather_async(const at::Tensor& tensor, at::Tensor& all) override
    {
        require_host(tensor);
        all = room_for_all(tensor, size());
        const auto ticket = lane_.submit([tensor, all, comm = lane_.comm()] { gather(tensor, all, comm); });
        return std::make_unique<LaneWork>(lane_, ticket, "all_gather of a tensor");
    }

    at::Tensor reduce_scatter_sum(const at::Tensor& tensor) override
    {
        alive("reduce_scatter of a tensor");
        require_host(tensor);
        auto shape = tensor.sizes().vec();
        if (shape.at(0) % size() != 0) {
            throw InternalError("reduce_scatter of rows that the ranks do not divide");
        }
        shape[0] /= size();
        if (tensor.scalar_type() == at::kBFloat16 || tensor.scalar_type() == at::kHalf) {
            return reduce_scatter_sum(tensor.to(at::kFloat)).to(tensor.scalar_type());
        }
        auto own = at::empty(shape, tensor.options());
        if (own.numel() > largest_count) {
            throw InternalError("reduce_scatter of more than 2^30 values a rank");
        }
        check(MPI_Reduce_scatter_block(tensor.const_data_ptr(), own.mutable_data_ptr(),
                                       static_cast<int>(own.numel()), sum_type(tensor.scalar_type()), MPI_SUM,
                                       world_.handle()),
              "MPI_Reduce_scatter_block");
        return own;
    }

    void barrier() override { world_.barrier(); }

private:
    const World& world_;
    Lane lane_;
};

}  // namespace

std::unique_ptr<Communicator> make_mpi_communicator(const World& world)
{
    return std::make_unique<MpiCommunicator>(world);
}

}  // namespace astroclip::comm
