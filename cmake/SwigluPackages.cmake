# Debian packages by `cpack` in the build folder: swiglu-server, with the programs as a service of systemd, and libswiglu-dev, with the
# libraries. Included after everything that is installed. deploy/debian has the service and the scripts; arrange_package.cmake gives
# the files their places. Elsewhere than on Debian and what descends from it there are no packages.
find_program(SWIGLU_DPKG_QUERY dpkg-query)
mark_as_advanced(SWIGLU_DPKG_QUERY)
if(NOT SWIGLU_DPKG_QUERY)
  return()
endif()

set(CPACK_GENERATOR DEB)
set(CPACK_PACKAGE_NAME swiglu)
set(CPACK_PACKAGE_VENDOR swiglu)
set(CPACK_PACKAGE_CONTACT "the maintainers of swiglu <root@localhost>" CACHE STRING "Who maintains the packages: NAME <ADDRESS>")
set(CPACK_PACKAGE_DIRECTORY ${CMAKE_BINARY_DIR}/packages)
set(CPACK_PACKAGING_INSTALL_PREFIX /usr)
set(CPACK_STRIP_FILES ON)
set(CPACK_DEB_COMPONENT_INSTALL ON)
set(CPACK_COMPONENTS_GROUPING ONE_PER_GROUP)
set(CPACK_DEBIAN_COMPRESSION_TYPE zstd)
set(CPACK_PRE_BUILD_SCRIPTS ${CMAKE_CURRENT_LIST_DIR}/arrange_package.cmake)

# What arrange_package.cmake needs to know.
set(CPACK_SWIGLU_SOURCE_DIR ${PROJECT_SOURCE_DIR})
set(CPACK_SWIGLU_CUDA ${SWIGLU_CUDA})

# Nothing in the package asks for a glibc newer than this machine's.
execute_process(COMMAND getconf GNU_LIBC_VERSION OUTPUT_VARIABLE glibc OUTPUT_STRIP_TRAILING_WHITESPACE)
string(REGEX REPLACE "^glibc " "" glibc "${glibc}")

set(debian_dir ${PROJECT_SOURCE_DIR}/deploy/debian)
set(CPACK_DEBIAN_SERVER_PACKAGE_NAME swiglu-server)
set(CPACK_DEBIAN_SERVER_FILE_NAME DEB-DEFAULT)
set(CPACK_DEBIAN_SERVER_PACKAGE_SECTION net)
set(CPACK_DEBIAN_SERVER_PACKAGE_DEPENDS "libc6 (>= ${glibc})")
set(CPACK_DEBIAN_SERVER_PACKAGE_CONTROL_EXTRA
  ${debian_dir}/conffiles ${debian_dir}/postinst ${debian_dir}/prerm ${debian_dir}/postrm)
set(CPACK_DEBIAN_SERVER_PACKAGE_CONTROL_STRICT_PERMISSION ON)
set(CPACK_COMPONENT_SERVER_DESCRIPTION
"The server, which computes SwiGLU on NVIDIA GPUs or the CPU, as a service of
systemd; the command swiglu, and the load generator swiglu-bench.")

# The archives are for the very libraries that they were compiled with.
set(depends)
foreach(package libabsl-dev libgrpc++-dev libhwy-dev libprotobuf-dev)
  execute_process(COMMAND ${SWIGLU_DPKG_QUERY} -W -f "\${source:Upstream-Version}" ${package}
    OUTPUT_VARIABLE version ERROR_QUIET)
  list(APPEND depends "${package} (>= ${version})" "${package} (<< ${version}.~)")
endforeach()
list(JOIN depends ", " CPACK_DEBIAN_DEVELOPMENT_PACKAGE_DEPENDS)
set(CPACK_DEBIAN_DEVELOPMENT_PACKAGE_NAME libswiglu-dev)
set(CPACK_DEBIAN_DEVELOPMENT_FILE_NAME DEB-DEFAULT)
set(CPACK_DEBIAN_DEVELOPMENT_PACKAGE_SECTION libdevel)
set(CPACK_COMPONENT_DEVELOPMENT_DESCRIPTION
"The libraries for C++: the client of swiglu-server, and the kernels for CUDA
and the CPU. Headers, archives, and the files of CMake and pkg-config.")

# A package is a group of components. Those that are not development are the server's.
get_cmake_property(CPACK_COMPONENTS_ALL COMPONENTS)
list(REMOVE_ITEM CPACK_COMPONENTS_ALL Unspecified)
include(CPack)
foreach(component IN LISTS CPACK_COMPONENTS_ALL)
  if(component STREQUAL development)
    cpack_add_component(${component} GROUP development)
  else()
    cpack_add_component(${component} GROUP server)
  endif()
endforeach()
