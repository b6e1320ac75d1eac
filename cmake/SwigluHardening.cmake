# Position-independent code, and in optimised builds the compiler's and linker's usual defences, for every target.
include(CheckPIESupported)
check_pie_supported()
set(CMAKE_POSITION_INDEPENDENT_CODE ON)

set(optimised $<CONFIG:Release,RelWithDebInfo>)
set(host_code $<COMPILE_LANGUAGE:C,CXX>)
add_compile_options(
  $<$<AND:${optimised},${host_code}>:-fstack-protector-strong>
  $<$<AND:${optimised},${host_code}>:-fstack-clash-protection>
  "$<$<AND:${optimised},${host_code}>:SHELL:-U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=2>")
add_link_options(-Wl,-z,relro,-z,now)
