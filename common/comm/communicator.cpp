#include "comm/communicator.hpp"

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <torch/csrc/autograd/custom_function.h>

#include "comm/room_for_all.hpp"

namespace astroclip::comm {
namespace {

struct AllGather : torch::autograd::Function<AllGather> {
    static at::Tensor forward(torch::autograd::AutogradContext* context, const at::Tensor& tensor,
                              std::int64_t ranks)
    {
        context->saved_data["ranks"] = ranks;
        return reinterpret_cast<Communicator*>(ranks)->all_gather(tensor);
    }

    static torch::autograd::tensor_list backward(torch::autograd::AutogradContext* context,
                                                 torch::autograd::tensor_list gradients)
    {
        auto* ranks = reinterpret_cast<Communicator*>(context->saved_data["ranks"].toInt());
        return {ranks->reduce_scatter_sum(gradients[0].contiguous()), at::Tensor()};
    }
};

}  // namespace

at::Tensor room_for_all(const at::Tensor& tensor, int ranks)
{
    auto shape = tensor.sizes().vec();
    shape.at(0) *= ranks;
    return at::empty(shape, tensor.options());
}

at::Tensor all_gather_with_grad(Communicator& ranks, const at::Tensor& tensor)
{
    // The communicator outlives every graph: it is made once a run. Its address travels as an integer, since
    // autograd functions take no other foreign types.
    return AllGather::apply(tensor.contiguous(), reinterpret_cast<std::int64_t>(&ranks));
}

at::Device local_device(const World& world, const std::string& name)
{
    const int gpus = name == "cpu" ? 0 : cuda_device_count();
    if (name == "cuda" && gpus == 0) {
        throw ConfigError(nccl_built() ? "'device' = 'cuda', but no GPU is visible on this machine"
                                       : "'device' = 'cuda', but this build has no CUDA (ASTROCLIP_CUDA)");
    }
    return gpus == 0 ? at::Device(at::kCPU)
                     : at::Device(at::kCUDA, static_cast<at::DeviceIndex>(world.local_rank() % gpus));
}

std::unique_ptr<Communicator> make_communicator(const World& world, at::Device device,
                                                const std::string& backend)
{
    // One rank a GPU: two ranks on one device cannot be in one NCCL communicator.
    const bool own_gpu = device.is_cuda() && world.local_rank() < cuda_device_count();
    const bool all_own_gpus = !world.any(!own_gpu);
    if (backend == "nccl" && !all_own_gpus) {
        throw ConfigError(
            "'backend' = 'nccl' needs a GPU of its own for every rank; start fewer ranks a node, or use mpi");
    }
    if (backend == "nccl" || (backend == "auto" && all_own_gpus)) {
        return make_nccl_communicator(world, device);
    }
    if (world.any(device.is_cuda())) {
        throw ConfigError(
            "'backend' = 'mpi' moves host tensors only: set 'device' = 'cpu', or 'backend' = 'nccl'");
    }
    return make_mpi_communicator(world);
}

}  // namespace astroclip::comm
