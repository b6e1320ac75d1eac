// SPDX-License-Identifier: Apache-2.0
//
// cudaHostAlloc and cudaFreeHost.
#include "server/device/pinned_memory.h"

#include <cuda_runtime_api.h>

#include <chrono>

#include "absl/strings/str_cat.h"
#include "server/device/cuda_handles.h"
#include "server/device/cuda_status.h"
#include "server/log/log.h"

namespace swiglu::server {
namespace {

class PinnedMemory final : public MemorySource {
 public:
  explicit PinnedMemory(int ordinal) : ordinal_(ordinal) {}

  absl::StatusOr<std::byte*> Allocate(size_t size_bytes) override {
    if (absl::Status status = UseCudaDevice(ordinal_); !status.ok()) return status;
    void* data = nullptr;
    const cudaError_t error =
        cudaHostAlloc(&data, size_bytes, cudaHostAllocPortable | cudaHostAllocMapped);
    if (error == cudaSuccess) return static_cast<std::byte*>(data);
    cudaGetLastError();  // handled here: the next launch on this thread must not find it
    if (ClassifyCudaError(error) != DeviceError::kOutOfMemory) return CudaStatus(error, ordinal_);
    return absl::ResourceExhaustedError(
        absl::StrCat("the host has no ", size_bytes, " bytes of memory left to pin"));
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
};

}  // namespace

std::unique_ptr<MemorySource> MakePinnedMemory(int ordinal) {
  return std::make_unique<PinnedMemory>(ordinal);
}

}  // namespace swiglu::server
