# Decides whether the NCCL backend is built (ASTROCLIP_CUDA) and offers its libraries as the target astroclip_cuda.
set(ASTROCLIP_WITH_NCCL OFF)
if(NOT ASTROCLIP_CUDA STREQUAL "OFF")
    find_package(CUDAToolkit QUIET)
    find_path(NCCL_INCLUDE_DIR nccl.h HINTS ${CUDAToolkit_INCLUDE_DIRS})
    find_library(NCCL_LIBRARY nccl HINTS ${CUDAToolkit_LIBRARY_DIR})
    if(CUDAToolkit_FOUND AND NCCL_INCLUDE_DIR AND NCCL_LIBRARY AND LibTorch_C10_CUDA_LIBRARY)
        set(ASTROCLIP_WITH_NCCL ON)
        add_library(astroclip_cuda INTERFACE)
        target_include_directories(astroclip_cuda SYSTEM INTERFACE ${NCCL_INCLUDE_DIR} ${CUDAToolkit_INCLUDE_DIRS})
        target_link_libraries(astroclip_cuda INTERFACE ${LibTorch_C10_CUDA_LIBRARY} ${NCCL_LIBRARY} CUDA::cudart)
    elseif(ASTROCLIP_CUDA STREQUAL "ON")
        message(FATAL_ERROR "ASTROCLIP_CUDA=ON, but not found: "
            "CUDA toolkit (${CUDAToolkit_FOUND}), nccl.h (${NCCL_INCLUDE_DIR}), libnccl (${NCCL_LIBRARY}), "
            "libc10_cuda of LibTorch (${LibTorch_C10_CUDA_LIBRARY})")
    endif()
endif()
message(STATUS "NCCL backend: ${ASTROCLIP_WITH_NCCL}")
