// SPDX-License-Identifier: Apache-2.0
//
// cudaHostAlloc and cudaFreeHost.
#include "server/device/pinned_memory.h"

#include <cuda_runtime_api.h>

#include <chrono>

#include "absl/strings/str_cat.h"
#include "server/device/cuda_status.h"
#include "server/log/log.h"

namespace swiglu::server {
namespace {

class PinnedMemory final : public MemorySource {
 public:
  PinnedMemory(int ordinal, Observer* observer) : ordinal_(ordinal), observer_(observer) {}

  absl::StatusOr<std::byte*> Allocate(size_t size_bytes) override {
    void* data = nullptr;
    cudaError_t error = cudaSetDevice(ordinal_);
    if (error == cudaSuccess) {
      error = cudaHostAlloc(&data, size_bytes, cudaHostAllocPortable | cudaHostAllocMapped);
    }
    if (error == cudaSuccess) return static_cast<std::byte*>(data);
    cudaGetLastError();  // handled here: the next launch on this thread must not find it
    const DeviceError kind = ClassifyCudaError(error);
    // A sticky one comes from a batch, which reports it, too.
    if (observer_ != nullptr && kind != DeviceError::kSticky) {
      observer_->DeviceFailed(ordinal_, kind);
    }
    if (kind != DeviceError::kOutOfMemory) return CudaStatus(error, ordinal_);
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
  Observer* const observer_;
};

}  // namespace

std::unique_ptr<MemorySource> MakePinnedMemory(int ordinal, Observer* observer) {
  return std::make_unique<PinnedMemory>(ordinal, observer);
}

}  // namespace swiglu::server
