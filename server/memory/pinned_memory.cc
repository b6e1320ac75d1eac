// SPDX-License-Identifier: Apache-2.0
//
// cudaHostAlloc and cudaFreeHost.
#include "server/memory/pinned_memory.h"

#include <cuda_runtime_api.h>

#include <chrono>

#include "absl/strings/str_cat.h"
#include "server/gpu/cuda_status.h"
#include "server/log/log.h"

namespace swiglu::server {
namespace {

class PinnedMemory final : public MemorySource {
 public:
  PinnedMemory(int ordinal, DeviceFaults* faults) : ordinal_(ordinal), faults_(faults) {}

  absl::StatusOr<std::byte*> Allocate(size_t size_bytes) override {
    void* data = nullptr;
    cudaError_t error = cudaSetDevice(ordinal_);
    if (error == cudaSuccess) {
      error = cudaHostAlloc(&data, size_bytes, cudaHostAllocPortable | cudaHostAllocMapped);
    }
    if (error == cudaSuccess) return static_cast<std::byte*>(data);
    cudaGetLastError();  // handled here: the next launch on this thread must not find it
    return PinningFailed(error, size_bytes, ordinal_, *faults_);
  }

  void Free(std::byte* data, size_t) noexcept override {
    cudaError_t error = cudaSetDevice(ordinal_);
    if (error == cudaSuccess) error = cudaFreeHost(data);
    if (error == cudaSuccess) return;
    cudaGetLastError();
    LOG_EVERY(WARNING, std::chrono::seconds(1), "cudaFreeHost: {}", DescribeCudaError(error));
  }

 private:
  const int ordinal_;
  DeviceFaults* const faults_;
};

}  // namespace

std::unique_ptr<MemorySource> MakePinnedMemory(int ordinal, DeviceFaults* faults) {
  return std::make_unique<PinnedMemory>(ordinal, faults);
}

absl::Status PinningFailed(cudaError_t error, size_t size_bytes, int ordinal,
                           DeviceFaults& faults) {
  const DeviceError kind = ClassifyCudaError(error);
  faults.Report(ordinal, kind,
                absl::StrCat("pinning ", size_bytes, " bytes: ", DescribeCudaError(error)));
  if (kind != DeviceError::kOutOfMemory) return CudaStatus(error, ordinal);
  return absl::ResourceExhaustedError(
      absl::StrCat("the host has no ", size_bytes, " bytes of memory left to pin"));
}

}  // namespace swiglu::server
