# Installation as a folder that can be moved: bin/ with the programs, lib/ with every shared library that they need except
# glibc's own. The programs look in ../lib by DT_RPATH, not DT_RUNPATH, because only the former also serves the libraries
# that the libraries need.
set(CMAKE_INSTALL_RPATH "$ORIGIN/../${CMAKE_INSTALL_LIBDIR}")
add_link_options(-Wl,--disable-new-dtags)

# What belongs to glibc and comes with the machine.
set(glibc_libraries "^(ld-linux-x86-64|libanl|libc|libdl|libm|libmvec|libnsl|libpthread|libresolv|librt|libutil)[.]so")

# Installs the programs named, with the libraries they load, as a component, so that one can be had without the others.
function(swiglu_install_programs component)
  install(TARGETS ${ARGN}
    RUNTIME_DEPENDENCIES PRE_EXCLUDE_REGEXES "${glibc_libraries}"
    RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR} COMPONENT ${component}
    LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR} COMPONENT ${component})
endfunction()

# Installs what a program prints with a flag as the file `path`, below the prefix. The component "documentation" has these files,
# and the target swiglu_texts writes them.
function(swiglu_install_text program flag path)
  if(NOT TARGET swiglu_texts)
    # What a sanitizer has to say about a program is for the tests, not for the build.
    if(CMAKE_CXX_FLAGS MATCHES "-fsanitize")
      add_custom_target(swiglu_texts)
    else()
      add_custom_target(swiglu_texts ALL)
    endif()
  endif()
  set(file ${CMAKE_BINARY_DIR}/texts/${path})
  cmake_path(GET path PARENT_PATH folder)
  cmake_path(GET path FILENAME name)
  file(MAKE_DIRECTORY ${CMAKE_BINARY_DIR}/texts/${folder})
  add_custom_command(OUTPUT ${file}
    COMMAND ${program} ${flag} > ${file}
    DEPENDS ${program} COMMENT "Writing ${name}" VERBATIM)
  string(MAKE_C_IDENTIFIER ${path} target)
  add_custom_target(${target} DEPENDS ${file})
  add_dependencies(swiglu_texts ${target})
  install(FILES ${file} DESTINATION ${folder} COMPONENT documentation)
endfunction()

# Installs the CMake package "swiglu", whose targets are what EXPORT swigluTargets has gathered.
function(swiglu_install_package)
  include(CMakePackageConfigHelpers)
  set(package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/swiglu)
  configure_package_config_file(${PROJECT_SOURCE_DIR}/cmake/swigluConfig.cmake.in swigluConfig.cmake
    INSTALL_DESTINATION ${package_dir})
  write_basic_package_version_file(swigluConfigVersion.cmake COMPATIBILITY SameMinorVersion)
  install(EXPORT swigluTargets NAMESPACE swiglu:: DESTINATION ${package_dir} COMPONENT development)
  install(FILES ${CMAKE_CURRENT_BINARY_DIR}/swigluConfig.cmake ${CMAKE_CURRENT_BINARY_DIR}/swigluConfigVersion.cmake
    ${PROJECT_SOURCE_DIR}/cmake/SwigluCudaToolkit.cmake
    DESTINATION ${package_dir} COMPONENT development)
endfunction()

# Installs the file swiglu-NAME.pc of a library, for pkg-config: swiglu_install_pkg_config(NAME DESCRIPTION TEXT LIBRARIES LIBRARY...
# REQUIRES PACKAGE... [CFLAGS OPTION...] [CUDA]). The libraries are archives, so a program links with all that they require.
function(swiglu_install_pkg_config name)
  cmake_parse_arguments(ARG CUDA DESCRIPTION "LIBRARIES;REQUIRES;CFLAGS" ${ARGN})
  set(folder ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
  file(RELATIVE_PATH to_prefix /${folder} /)
  string(REGEX REPLACE "/$" "" to_prefix ${to_prefix})
  list(JOIN ARG_REQUIRES ", " requires)
  list(TRANSFORM ARG_LIBRARIES PREPEND -l OUTPUT_VARIABLE libs)
  list(JOIN libs " " libs)
  set(variables "")
  list(PREPEND ARG_CFLAGS "-I\${includedir}")
  if(ARG_CUDA)
    # The toolkit may lie elsewhere where the folder is used; --define-variable says so.
    set(variables "cuda_includedir=/usr/local/cuda/include\ncuda_libdir=/usr/local/cuda/lib64\n")
    list(APPEND ARG_CFLAGS "-I\${cuda_includedir}")
    string(APPEND libs " -L\${cuda_libdir} -lcudart_static -ldl -lrt")
  endif()
  list(JOIN ARG_CFLAGS " " cflags)
  configure_file(${PROJECT_SOURCE_DIR}/cmake/pkg_config.pc.in swiglu-${name}.pc @ONLY)
  install(FILES ${CMAKE_CURRENT_BINARY_DIR}/swiglu-${name}.pc DESTINATION ${folder} COMPONENT development)
endfunction()
