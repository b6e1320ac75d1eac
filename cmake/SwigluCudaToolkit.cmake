# Comes before find_package(CUDAToolkit), in the build and in the installed package.
if(CMAKE_VERSION VERSION_LESS 3.26 AND NOT TARGET CUDA::nvToolsExt)
  # CMake 3.25 speaks of this library's target without asking whether it is there, and CUDA 13 has it no more.
  add_library(CUDA::nvToolsExt INTERFACE IMPORTED)
endif()
