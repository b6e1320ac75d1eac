// SPDX-License-Identifier: Apache-2.0
//
// The memory of a GPU, in builds with CUDA.
#include <cuda_runtime_api.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "client/bench/shared_region.h"
#include "swiglu/cuda_shared_memory.h"

namespace swiglu::bench {
namespace {

absl::Status ToStatus(cudaError_t error) {
  if (error == cudaSuccess) return absl::OkStatus();
  cudaGetLastError();
  const std::string text =
      absl::StrCat("CUDA: ", cudaGetErrorName(error), ": ", cudaGetErrorString(error));
  return error == cudaErrorMemoryAllocation ? absl::ResourceExhaustedError(text)
                                            : absl::InternalError(text);
}

struct CudaFree {
  void operator()(std::byte* d_bytes) const { cudaFree(d_bytes); }
};
using DeviceMemory = std::unique_ptr<std::byte, CudaFree>;

class DeviceRegion final : public SharedRegion {
 public:
  DeviceRegion(DeviceMemory d_bytes, client::CudaRegion region)
      : d_bytes_(std::move(d_bytes)), region_(std::move(region)) {}

  client::RegionPart Part(int64_t offset, int64_t size_bytes) const override {
    return region_.Part(offset, size_bytes);
  }

  absl::Status Write(int64_t offset, absl::Span<const std::byte> bytes) override {
    const cudaError_t error =
        cudaMemcpy(d_bytes_.get() + offset, bytes.data(), bytes.size(), cudaMemcpyHostToDevice);
    // The copy itself may return before the bytes are on the device.
    return ToStatus(error == cudaSuccess ? cudaDeviceSynchronize() : error);
  }

  absl::Status Read(int64_t offset, absl::Span<std::byte> bytes) const override {
    return ToStatus(
        cudaMemcpy(bytes.data(), d_bytes_.get() + offset, bytes.size(), cudaMemcpyDeviceToHost));
  }

 private:
  const DeviceMemory d_bytes_;
  const client::CudaRegion region_;  // unregistered before the memory is freed
};

}  // namespace

const bool kHasCuda = true;

absl::StatusOr<std::unique_ptr<SharedRegion>> CreateCudaRegion(const client::Client& client,
                                                               int64_t size_bytes) {
  void* d_bytes = nullptr;
  const absl::Status status = ToStatus(cudaMalloc(&d_bytes, static_cast<size_t>(size_bytes)));
  if (!status.ok()) return status;
  DeviceMemory memory(static_cast<std::byte*>(d_bytes));
  absl::StatusOr<client::CudaRegion> region =
      client::CudaRegion::Create(client, d_bytes, size_bytes);
  if (!region.ok()) return region.status();
  return std::make_unique<DeviceRegion>(std::move(memory), *std::move(region));
}

}  // namespace swiglu::bench
