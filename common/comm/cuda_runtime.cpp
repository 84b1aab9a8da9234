#include <cuda_runtime_api.h>
#include <dlfcn.h>

#include "comm/communicator.hpp"
#include "core/log.hpp"

// The CUDA half of LibTorch (several GB of libraries) is loaded when a GPU is there and wanted, so that the
// same program starts on machines without it. It registers its kernels as it is loaded, before the first CUDA
// tensor is made.
namespace astroclip::comm {
namespace {

int count_devices()
{
    int devices = 0;
    if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0) {
        return 0;
    }
    if (dlopen("libtorch_cuda.so", RTLD_NOW | RTLD_GLOBAL) == nullptr) {
        log::warn(
            "{} GPUs are visible, but LibTorch's CUDA library cannot be loaded ({}): computing on the CPU",
            devices, dlerror());
        return 0;
    }
    return devices;
}

}  // namespace

int cuda_device_count()
{
    static const int devices = count_devices();
    return devices;
}

}  // namespace astroclip::comm
