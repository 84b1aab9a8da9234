# LibTorch as the target LibTorch::cpu, from any installation: a libtorch folder, or the `torch` folder of a Python wheel.
# Looked for in $ASTROCLIP_TORCH, -DASTROCLIP_TORCH=, CMAKE_PREFIX_PATH, and the cache folder of tools/setup.sh.
#
# The wheel's own TorchConfig.cmake fails where no CUDA toolkit is installed, and with one it links the CUDA libraries
# (4 GB) into every program. This module imports the CPU libraries only; the CUDA ones are loaded at run time, on
# machines that have them (comm/cuda_runtime.hpp).
if(DEFINED ENV{ASTROCLIP_CACHE})
    set(_cache $ENV{ASTROCLIP_CACHE})
else()
    set(_cache $ENV{HOME}/.cache/astroclip)
endif()
file(GLOB _cached ${_cache}/torch-*/torch)
list(SORT _cached COMPARE NATURAL ORDER DESCENDING)
find_path(LibTorch_ROOT NAMES include/ATen/ATen.h
    HINTS ${ASTROCLIP_TORCH} $ENV{ASTROCLIP_TORCH} PATH_SUFFIXES torch libtorch
    PATHS ${_cached} DOC "folder that holds include/ and lib/ of LibTorch 2.x")
find_library(LibTorch_CPU_LIBRARY torch_cpu HINTS ${LibTorch_ROOT}/lib NO_DEFAULT_PATH)
find_library(LibTorch_C10_LIBRARY c10 HINTS ${LibTorch_ROOT}/lib NO_DEFAULT_PATH)
find_library(LibTorch_C10_CUDA_LIBRARY c10_cuda HINTS ${LibTorch_ROOT}/lib NO_DEFAULT_PATH)
mark_as_advanced(LibTorch_CPU_LIBRARY LibTorch_C10_LIBRARY LibTorch_C10_CUDA_LIBRARY)

if(LibTorch_ROOT)
    find_file(_header version.h PATHS ${LibTorch_ROOT}/include/torch/headeronly
        ${LibTorch_ROOT}/include/torch/csrc/api/include/torch NO_DEFAULT_PATH NO_CACHE)
    foreach(_part MAJOR MINOR PATCH)
        file(STRINGS ${_header} _line REGEX "define TORCH_VERSION_${_part} ")
        string(REGEX MATCH "[0-9]+$" _number "${_line}")
        list(APPEND _numbers ${_number})
    endforeach()
    list(JOIN _numbers "." LibTorch_VERSION)
endif()
include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(LibTorch REQUIRED_VARS LibTorch_ROOT LibTorch_CPU_LIBRARY LibTorch_C10_LIBRARY
    VERSION_VAR LibTorch_VERSION
    REASON_FAILURE_MESSAGE "run tools/setup.sh, or set ASTROCLIP_TORCH to an unpacked LibTorch 2.x")

if(LibTorch_FOUND AND NOT TARGET LibTorch::cpu)
    add_library(LibTorch::c10 SHARED IMPORTED)
    set_target_properties(LibTorch::c10 PROPERTIES IMPORTED_LOCATION ${LibTorch_C10_LIBRARY})
    add_library(LibTorch::cpu SHARED IMPORTED)
    set_target_properties(LibTorch::cpu PROPERTIES IMPORTED_LOCATION ${LibTorch_CPU_LIBRARY}
        INTERFACE_LINK_LIBRARIES LibTorch::c10
        INTERFACE_INCLUDE_DIRECTORIES
            "${LibTorch_ROOT}/include;${LibTorch_ROOT}/include/torch/csrc/api/include"
        # libtorch_cpu names libcudart and libcupti of its wheel, which its own rpath finds at run time.
        INTERFACE_LINK_OPTIONS "LINKER:--allow-shlib-undefined")
endif()
