# The target swiglu::version: header "version/version.h" with the project's version, the commit and the CUDA version.
# The header is written at build time, so that a new commit shows without a new configure, and only when its text changes.
set(SWIGLU_COMMIT "" CACHE STRING "Commit to report; empty asks git at build time, and is \"unknown\" outside a git tree")

set(SWIGLU_CUDA_VERSION "none")
if(SWIGLU_CUDA)
  set(SWIGLU_CUDA_VERSION "${CUDAToolkit_VERSION_MAJOR}.${CUDAToolkit_VERSION_MINOR}")
endif()

set(version_dir ${CMAKE_CURRENT_BINARY_DIR}/version_include)
find_package(Git QUIET)
add_custom_target(swiglu_version_header
  COMMAND ${CMAKE_COMMAND}
    -D VERSION=${PROJECT_VERSION} -D COMMIT=${SWIGLU_COMMIT} -D CUDA_VERSION=${SWIGLU_CUDA_VERSION}
    -D GIT=${GIT_EXECUTABLE} -D SOURCE_DIR=${PROJECT_SOURCE_DIR}
    -D TEMPLATE=${CMAKE_CURRENT_LIST_DIR}/version.h.in -D OUTPUT=${version_dir}/version/version.h
    -P ${CMAKE_CURRENT_LIST_DIR}/write_version.cmake
  BYPRODUCTS ${version_dir}/version/version.h
  COMMENT "Writing version/version.h"
  VERBATIM)

add_library(swiglu_version INTERFACE)
add_library(swiglu::version ALIAS swiglu_version)
target_include_directories(swiglu_version INTERFACE ${version_dir})
add_dependencies(swiglu_version swiglu_version_header)
