# Decides whether approximate search is built (ASTROCLIP_FAISS).
set(ASTROCLIP_WITH_FAISS OFF)
if(NOT ASTROCLIP_FAISS STREQUAL "OFF")
    find_package(OpenMP QUIET COMPONENTS CXX)  # which FAISS's own configuration names without looking for it
    find_package(faiss QUIET)
    if(faiss_FOUND AND OpenMP_CXX_FOUND)
        set(ASTROCLIP_WITH_FAISS ON)
        # LibTorch has the BLAS that FAISS calls. Debian's, which FAISS names, would take the place of LibTorch's own in
        # the whole program: slower, and with other rounding.
        set_target_properties(faiss PROPERTIES INTERFACE_LINK_LIBRARIES OpenMP::OpenMP_CXX)
    elseif(ASTROCLIP_FAISS STREQUAL "ON")
        message(FATAL_ERROR "ASTROCLIP_FAISS=ON, but not found: faiss (${faiss_FOUND}; libfaiss-dev) or OpenMP (${OpenMP_CXX_FOUND})")
    endif()
endif()
message(STATUS "Approximate search by FAISS: ${ASTROCLIP_WITH_FAISS}")
