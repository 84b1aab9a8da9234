#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

// Stands in for LibTorch's header where there is no GPU: streams are numbers, see nccl_stand_in.hpp.
namespace c10::cuda {

class CUDAStream {
public:
    explicit CUDAStream(std::intptr_t number) : number_(number) {}
    operator cudaStream_t() const { return reinterpret_cast<cudaStream_t>(number_); }

private:
    std::intptr_t number_;
};

inline CUDAStream getCurrentCUDAStream(int = -1) { return CUDAStream(1); }
inline CUDAStream getStreamFromPool(bool, int) { return CUDAStream(2); }

}  // namespace c10::cuda
