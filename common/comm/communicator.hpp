#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <string>

#include "comm/world.hpp"

namespace astroclip::comm {

// A collective that is under way; wait() before its tensor is read or written.
class Work {
public:
    virtual ~Work() = default;
    virtual void wait() = 0;
};

// Tensors between the ranks: the only thing that training and search know of MPI or NCCL. All members are
// collective and must be called in the same order by all ranks, from one thread at a time. Tensors are
// contiguous, on `device()`, of equal shape on all ranks, of type float64, float32, bfloat16 or float16
// (sums: in that type), int64 or uint8. Sums give the same bits on all ranks: MPI promises that,
// NCCL keeps to it. Errors: PeerLost.
class Communicator {
public:
    virtual ~Communicator() = default;

    virtual int rank() const = 0;
    virtual int size() const = 0;
    virtual at::Device device() const = 0;
    virtual std::string backend() const = 0;  // "mpi" or "nccl"

    virtual void broadcast(at::Tensor& tensor, int root) = 0;
    virtual void all_reduce_sum(at::Tensor& tensor) = 0;
    virtual std::unique_ptr<Work> all_reduce_sum_async(at::Tensor& tensor) = 0;
    virtual at::Tensor all_gather(const at::Tensor& tensor) = 0;  // [n, …] -> [size·n, …] in rank order
    // Makes `all`, which is filled when the work is done.
    virtual std::unique_ptr<Work> all_gather_async(const at::Tensor& tensor, at::Tensor& all) = 0;
    virtual at::Tensor reduce_scatter_sum(
        const at::Tensor& tensor) = 0;  // [size·n, …] -> [n, …], this rank's block
    virtual void barrier() = 0;
};

// `backend`: "mpi" (host tensors), "nccl" (GPU tensors), or "auto": nccl when every rank has a GPU of its
// own. `device`: where this rank's tensors live (nn::local_device). Throws ConfigError if the backend cannot
// serve it.
std::unique_ptr<Communicator> make_communicator(const World& world, at::Device device,
                                                const std::string& backend);

// all_gather whose backward is a reduce-scatter (sum) of the gradient of the gathered tensor (the exact
// gradient when each rank's loss covers its own rows and gradients are averaged over ranks).
at::Tensor all_gather_with_grad(Communicator& ranks, const at::Tensor& tensor);

// The device a rank computes on: "cpu", "cuda" (the rank's own GPU by local rank) or "auto" (cuda if this
// build and this machine have it). Throws ConfigError for "cuda" without a GPU.
at::Device local_device(const World& world, const std::string& name);

std::unique_ptr<Communicator> make_mpi_communicator(const World& world);
std::unique_ptr<Communicator> make_nccl_communicator(const World& world,
                                                     at::Device device);  // nccl_communicator.cpp
bool nccl_built();
int cuda_device_count();  // 0 without CUDA

}  // namespace astroclip::comm
