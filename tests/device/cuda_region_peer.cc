// SPDX-License-Identifier: Apache-2.0
//
// Another process that has memory on a GPU, for cuda_region_test.cc: it prints a handle of it, and
// then does what the lines on its standard input say.
//
//   cuda_region_peer BYTES
//   fill N    sets every byte to N
//   first     prints the first byte
//   free      frees the memory
#include <cuda_runtime_api.h>

#include <cstdio>
#include <cstdlib>
#include <iostream>
#include <string>

namespace {

void Check(cudaError_t error) {
  if (error == cudaSuccess) return;
  std::fprintf(stderr, "cuda_region_peer: %s\n", cudaGetErrorString(error));
  std::exit(1);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) return 2;
  const size_t size_bytes = std::strtoull(argv[1], nullptr, 10);
  void* d_data = nullptr;
  Check(cudaMalloc(&d_data, size_bytes));
  cudaIpcMemHandle_t handle;
  Check(cudaIpcGetMemHandle(&handle, d_data));
  for (const char byte : handle.reserved) std::printf("%02x", static_cast<unsigned char>(byte));
  std::printf("\n");
  std::fflush(stdout);
  for (std::string word; std::cin >> word;) {
    int number = 0;
    unsigned char first = 0;
    if (word == "fill") {
      std::cin >> number;
      Check(cudaMemset(d_data, number, size_bytes));
      Check(cudaDeviceSynchronize());
    } else if (word == "first") {
      Check(cudaMemcpy(&first, d_data, 1, cudaMemcpyDeviceToHost));
      number = first;
    } else if (word == "free") {
      Check(cudaFree(d_data));
    }
    std::printf("%d\n", number);
    std::fflush(stdout);
  }
}
