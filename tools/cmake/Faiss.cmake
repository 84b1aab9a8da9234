# Approximate search (ASTROCLIP_FAISS=ON): the target faiss.
if(ASTROCLIP_FAISS)
    # FAISS's own configuration names this target without looking for it. By the flag alone there is one OpenMP, LibTorch's.
    add_library(OpenMP::OpenMP_CXX INTERFACE IMPORTED)
    set_target_properties(OpenMP::OpenMP_CXX PROPERTIES INTERFACE_LINK_LIBRARIES -fopenmp)
    find_package(faiss REQUIRED)
endif()
message(STATUS "Approximate search by FAISS: ${ASTROCLIP_FAISS}")
