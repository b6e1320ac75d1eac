// SPDX-License-Identifier: Apache-2.0
//
// Runs the CUDA kernels on device 0, in one kind of memory and with one bound of the grid.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "swiglu/cuda.h"
#include "tests/kernels/kernel_test.h"
#include "tests/kernels/runner.h"

namespace swiglu::kernels {

// Where tensors lie.
enum class CudaMemory {
  kDevice,
  kMapped,  // pinned host memory
};

// Keeps the memory that it has allocated, and outlives its users.
class CudaRunner final : public Runner {
 public:
  CudaRunner(CudaMemory memory, LaunchLimits limits);
  ~CudaRunner() override;
  CudaRunner(const CudaRunner&) = delete;
  CudaRunner& operator=(const CudaRunner&) = delete;

  void Run(Dtype dtype, std::span<const ForwardSegment> segments) override;
  void Run(Dtype dtype, std::span<const BackwardSegment> segments) override;
  std::shared_ptr<std::byte> Allocate(size_t num_bytes) override;
  void CopyIn(std::byte* to, std::span<const std::byte> from) override;
  void CopyOut(std::span<std::byte> to, const std::byte* from) override;

 private:
  std::shared_ptr<std::byte> AllocateAnew(size_t num_bytes) const;

  const CudaMemory memory_;
  const LaunchLimits limits_;
  cudaStream_t stream_ = nullptr;
  // Memory given back, by its size: CUDA takes long to allocate.
  std::map<size_t, std::vector<std::shared_ptr<std::byte>>> free_;
};

// Why no device can be used, or nothing if device 0 can.
std::string WhyNoCudaDevice();

// Both kinds of memory, each with the grid unbounded and bounded.
std::vector<RunnerChoice> EveryCudaRunner();

// Device memory of `num_bytes`, or null where there is not enough.
std::shared_ptr<std::byte> AllocateOnDevice(size_t num_bytes);

}  // namespace swiglu::kernels
