// SPDX-License-Identifier: Apache-2.0
//
// Launches on a stream of its own, and memory that frees itself.
#include "tests/kernels/cuda_runner.h"

#include <gtest/gtest.h>

#include <bit>

namespace swiglu::kernels {
namespace {

// Which CreateRunner makes, in the order of EveryCudaRunner.
constexpr struct {
  const char* name;
  CudaMemory memory;
  LaunchLimits limits;
} kRunners[] = {
    {"Device", CudaMemory::kDevice, {}},
    {"DeviceThreeBlocks", CudaMemory::kDevice, {3}},
    {"Mapped", CudaMemory::kMapped, {}},
    {"MappedThirtyTwoBlocks", CudaMemory::kMapped, {32}},
};

CreatedRunner CreateRunner(int64_t index) {
  const std::string missing = WhyNoCudaDevice();
  if (!missing.empty()) return {nullptr, missing};
  const auto& [name, memory, limits] = kRunners[index];
  return {std::make_unique<CudaRunner>(memory, limits), ""};
}

}  // namespace

CudaRunner::CudaRunner(CudaMemory memory, LaunchLimits limits) : memory_(memory), limits_(limits) {
  EXPECT_EQ(cudaStreamCreate(&stream_), cudaSuccess);
}

CudaRunner::~CudaRunner() { EXPECT_EQ(cudaStreamDestroy(stream_), cudaSuccess); }

void CudaRunner::Run(Dtype dtype, std::span<const ForwardSegment> segments) {
  EXPECT_EQ(ForwardCuda(dtype, segments, limits_, stream_), cudaSuccess);
  EXPECT_EQ(cudaStreamSynchronize(stream_), cudaSuccess);
}

void CudaRunner::Run(Dtype dtype, std::span<const BackwardSegment> segments) {
  EXPECT_EQ(BackwardCuda(dtype, segments, limits_, stream_), cudaSuccess);
  EXPECT_EQ(cudaStreamSynchronize(stream_), cudaSuccess);
}

std::shared_ptr<std::byte> CudaRunner::Allocate(size_t num_bytes) {
  const size_t size_class = std::bit_ceil(num_bytes);
  auto& unused = free_[size_class];
  if (unused.empty()) unused.push_back(AllocateAnew(size_class));
  const std::shared_ptr<std::byte> memory = unused.back();
  unused.pop_back();
  return {memory.get(),
          [this, size_class, memory](std::byte*) { free_[size_class].push_back(memory); }};
}

std::shared_ptr<std::byte> CudaRunner::AllocateAnew(size_t num_bytes) const {
  if (memory_ == CudaMemory::kDevice) return AllocateOnDevice(num_bytes);
  // With unified addressing, which all devices here have, the device sees the same address.
  void* h_data = nullptr;
  EXPECT_EQ(cudaHostAlloc(&h_data, num_bytes, cudaHostAllocMapped), cudaSuccess);
  return {static_cast<std::byte*>(h_data), [](std::byte* data) { cudaFreeHost(data); }};
}

void CudaRunner::CopyIn(std::byte* to, std::span<const std::byte> from) {
  EXPECT_EQ(cudaMemcpy(to, from.data(), from.size(), cudaMemcpyDefault), cudaSuccess);
}

void CudaRunner::CopyOut(std::span<std::byte> to, const std::byte* from) {
  EXPECT_EQ(cudaMemcpy(to.data(), from, to.size(), cudaMemcpyDefault), cudaSuccess);
}

std::string WhyNoCudaDevice() {
  int num_devices = 0;
  const cudaError_t error = cudaGetDeviceCount(&num_devices);
  if (error == cudaSuccess && num_devices > 0) return "";
  cudaGetLastError();  // leaves no trace of the question
  return std::string("no CUDA device: ") +
         cudaGetErrorString(error != cudaSuccess ? error : cudaErrorNoDevice);
}

std::vector<RunnerChoice> EveryCudaRunner() {
  std::vector<RunnerChoice> choices;
  for (const auto& runner : kRunners) {
    choices.push_back({runner.name, CreateRunner, static_cast<int64_t>(choices.size())});
  }
  return choices;
}

std::shared_ptr<std::byte> AllocateOnDevice(size_t num_bytes) {
  void* d_data = nullptr;
  if (cudaMalloc(&d_data, num_bytes) != cudaSuccess) {
    cudaGetLastError();
    return nullptr;
  }
  return {static_cast<std::byte*>(d_data), [](std::byte* data) { cudaFree(data); }};
}

}  // namespace swiglu::kernels
