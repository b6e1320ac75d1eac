// SPDX-License-Identifier: Apache-2.0
//
// Errors, and the name of the device.
#include "tests/bench/cuda_host.h"

#include <cstdio>
#include <cstdlib>
#include <string>

namespace swiglu::bench {

void Check(cudaError_t error) {
  if (error == cudaSuccess) return;
  std::fprintf(stderr, "CUDA: %s\n", cudaGetErrorString(error));
  std::exit(1);
}

bool AddDeviceFact(Report& report) {
  int num_devices = 0;
  const cudaError_t error = cudaGetDeviceCount(&num_devices);
  if (error != cudaSuccess || num_devices == 0) {
    std::fprintf(stderr, "no CUDA device: %s\n", cudaGetErrorString(error));
    return false;
  }
  cudaDeviceProp properties{};
  Check(cudaGetDeviceProperties(&properties, 0));
  int driver = 0;
  Check(cudaDriverGetVersion(&driver));
  report.AddFact("gpu", std::string(properties.name) + ", " +
                            std::to_string(properties.multiProcessorCount) +
                            " multiprocessors, CUDA driver " + std::to_string(driver / 1000) + "." +
                            std::to_string(driver % 1000 / 10));
  return true;
}

}  // namespace swiglu::bench
