#include "comm/communicator.hpp"

// A build without CUDA or NCCL: compiled in place of nccl_communicator.cpp and cuda_runtime.cpp.
namespace astroclip::comm {

std::unique_ptr<Communicator> make_nccl_communicator(const World&, at::Device)
{
    throw ConfigError("this build has no NCCL backend; configure with -DASTROCLIP_CUDA=ON");
}

bool nccl_built() { return false; }

int cuda_device_count() { return 0; }

}  // namespace astroclip::comm
