# The libraries that the project builds on, all of them the distribution's packages (deploy/setup.sh installs them).
find_package(Threads REQUIRED)
find_package(Protobuf REQUIRED)
find_package(gRPC CONFIG REQUIRED)
find_package(absl CONFIG REQUIRED)
find_package(prometheus-cpp CONFIG REQUIRED)
find_package(hwy CONFIG REQUIRED)
find_package(spdlog CONFIG REQUIRED)
find_package(nlohmann_json CONFIG REQUIRED)
find_package(CLI11 CONFIG REQUIRED)
find_package(CURL REQUIRED)
find_package(OpenSSL REQUIRED COMPONENTS Crypto)

# What the server and the benchmark allocate with: messages come from one thread and go on another, which glibc pays for with
# locks or with memory (ADR 5). Off is for sanitizers, which bring an allocator of their own.
option(SWIGLU_TCMALLOC "Allocate with tcmalloc" ON)
add_library(swiglu_allocator INTERFACE)
if(SWIGLU_TCMALLOC)
  find_library(SWIGLU_TCMALLOC_LIBRARY tcmalloc_minimal REQUIRED)
  # Nothing names a symbol of it.
  target_link_options(swiglu_allocator
    INTERFACE "LINKER:--push-state,--no-as-needed" ${SWIGLU_TCMALLOC_LIBRARY} "LINKER:--pop-state")
endif()
