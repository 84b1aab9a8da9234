# Approximate search (ASTROCLIP_FAISS=ON). Debian's BLAS, which FAISS calls, then serves the whole program in the place of
# LibTorch's own: exact search rounds otherwise than in a build without, and is as fast as that BLAS.
if(ASTROCLIP_FAISS)
    find_package(OpenMP REQUIRED COMPONENTS CXX)  # which FAISS's own configuration names without looking for it
    find_package(faiss REQUIRED)
endif()
message(STATUS "Approximate search by FAISS: ${ASTROCLIP_FAISS}")
