# Decides whether approximate search by FAISS is built (ASTROCLIP_FAISS) and offers it as the target faiss.
set(ASTROCLIP_WITH_FAISS OFF)
if(NOT ASTROCLIP_FAISS STREQUAL "OFF")
    # FAISS's own configuration names this target without looking for it. By the flag alone there is one OpenMP, LibTorch's.
    add_library(OpenMP::OpenMP_CXX INTERFACE IMPORTED)
    set_target_properties(OpenMP::OpenMP_CXX PROPERTIES INTERFACE_LINK_LIBRARIES -fopenmp)
    find_package(faiss QUIET)
    if(faiss_FOUND)
        set(ASTROCLIP_WITH_FAISS ON)
    elseif(ASTROCLIP_FAISS STREQUAL "ON")
        message(FATAL_ERROR "ASTROCLIP_FAISS=ON, but not found: faiss-config.cmake of FAISS (libfaiss-dev)")
    endif()
endif()
message(STATUS "Approximate search by FAISS: ${ASTROCLIP_WITH_FAISS}")
