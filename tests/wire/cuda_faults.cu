// SPDX-License-Identifier: Apache-2.0
//
// The kernels. See the header.
#include "tests/wire/cuda_faults.h"

namespace swiglu::server {
namespace {

constexpr int kThreadsPerBlock = 1024;
constexpr unsigned long long kBusyNanoseconds = 1'000'000'000;

__device__ unsigned long long Now() {
  unsigned long long now;
  asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(now));
  return now;
}

__global__ void Break(KernelFault fault) {
  const unsigned long long end = Now() + kBusyNanoseconds;
  while (Now() < end) __nanosleep(1000);
  if (fault == KernelFault::kTrap) asm volatile("trap;");
  // No address of anybody: the first page is never mapped.
  *reinterpret_cast<volatile int*>(16) = 1;
}

}  // namespace

cudaError_t LaunchFault(KernelFault fault, cudaStream_t stream) {
  int device = 0;
  cudaError_t error = cudaGetDevice(&device);
  cudaDeviceProp properties{};
  if (error == cudaSuccess) error = cudaGetDeviceProperties(&properties, device);
  if (error != cudaSuccess) return error;
  // As many threads as the device holds at once.
  const int blocks_each = properties.maxThreadsPerMultiProcessor / kThreadsPerBlock;
  Break<<<properties.multiProcessorCount * blocks_each, kThreadsPerBlock, 0, stream>>>(fault);
  return cudaGetLastError();
}

}  // namespace swiglu::server
