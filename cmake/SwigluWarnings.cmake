# One INTERFACE target with the warnings that all of our own code is built with. With SWIGLU_WARNINGS_AS_ERRORS they are
# errors under the compilers that the project is checked with; others may warn of other things.
option(SWIGLU_WARNINGS_AS_ERRORS "Treat warnings as errors under GCC 12 and Clang 14" OFF)

add_library(swiglu_warnings INTERFACE)
target_compile_options(swiglu_warnings INTERFACE
  $<$<COMPILE_LANGUAGE:CXX>:-Wall -Wextra -Wshadow -Wnon-virtual-dtor>)

# GCC 12 sees overlapping copies inside std::string where there are none (its bug 105329).
target_compile_options(swiglu_warnings INTERFACE
  $<$<AND:$<COMPILE_LANGUAGE:CXX>,$<CXX_COMPILER_ID:GNU>>:-Wno-restrict>)

string(REGEX MATCH "^[0-9]+" compiler_major ${CMAKE_CXX_COMPILER_VERSION})
if(SWIGLU_WARNINGS_AS_ERRORS AND "${CMAKE_CXX_COMPILER_ID}-${compiler_major}" MATCHES "^(GNU-12|Clang-14)$")
  target_compile_options(swiglu_warnings INTERFACE $<$<COMPILE_LANGUAGE:CXX>:-Werror>)
endif()
