# Initial cache (cmake -C): for a debugger.
include(${CMAKE_CURRENT_LIST_DIR}/release.cmake)
set(CMAKE_BUILD_TYPE Debug CACHE STRING "" FORCE)
