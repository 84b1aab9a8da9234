# Initial cache (cmake -C): address and undefined-behaviour sanitizers. MPI and LibTorch leak at exit by design:
# run with ASAN_OPTIONS=detect_leaks=0.
include(${CMAKE_CURRENT_LIST_DIR}/release.cmake)
set(CMAKE_BUILD_TYPE Debug CACHE STRING "" FORCE)
set(CMAKE_CXX_FLAGS "-O1 -fsanitize=address,undefined -fno-omit-frame-pointer" CACHE STRING "")
