// SPDX-License-Identifier: Apache-2.0
//
// cudaHostRegister and cudaIpcOpenMemHandle. See the header.
#include "server/device/cuda_region_opener.h"

#include <cuda.h>
#include <cuda_runtime_api.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <utility>

#include "server/device/hole_guard.h"
#include "server/device/shared_file.h"
#include "server/gpu/cuda_status.h"
#include "server/log/log.h"

namespace swiglu::server {
namespace {

// Forgets the error of this thread, which is dealt with: the next launch must not find it.
void LogAndForget(const char* what, cudaError_t error) {
  cudaGetLastError();
  if (error == cudaSuccess) return;
  LOG_EVERY(WARNING, std::chrono::seconds(1), "{}: {}", what, DescribeCudaError(error));
}

// A system region that every device reads and writes where it lies. The pages are pinned: they stay
// when the file gets shorter. The guard is for the driver, which may copy a few bytes by the CPU.
class PinnedRegion final : public RegionMemory {
 public:
  PinnedRegion(SharedFile file, int ordinal)
      : RegionMemory(file.data(), kCpuDevice),
        file_(std::move(file)),
        guard_(file_.data(), file_.mapped_bytes(), file_.page_bytes()),
        ordinal_(ordinal) {}
  ~PinnedRegion() override {
    cudaError_t error = cudaSetDevice(ordinal_);
    if (error == cudaSuccess) error = cudaHostUnregister(file_.data());
    LogAndForget("cudaHostUnregister", error);
  }

  bool IsShrunk() const override { return file_.IsShrunk(); }
  bool HasHole() const override { return guard_.met_hole(); }

 private:
  const SharedFile file_;
  const HoleGuard guard_;
  const int ordinal_;
};

// Memory of another process on a device.
class CudaRegion final : public RegionMemory {
 public:
  CudaRegion(std::byte* d_data, int ordinal) : RegionMemory(d_data, ordinal) {}
  ~CudaRegion() override {
    cudaError_t error = cudaSetDevice(device());
    if (error == cudaSuccess) error = cudaIpcCloseMemHandle(data());
    LogAndForget("cudaIpcCloseMemHandle", error);
  }
};

// The bytes from `d_data` to the end of its allocation; 0 if the driver does not tell.
size_t ExtentOf(const std::byte* d_data) {
  using GetAddressRange = CUresult (*)(CUdeviceptr*, size_t*, CUdeviceptr);
  void* function = nullptr;
  cudaDriverEntryPointQueryResult found;
  const cudaError_t error = cudaGetDriverEntryPointByVersion("cuMemGetAddressRange", &function,
                                                             12000, cudaEnableDefault, &found);
  if (error != cudaSuccess || function == nullptr) return 0;
  CUdeviceptr base = 0;
  size_t size_bytes = 0;
  const auto address = reinterpret_cast<CUdeviceptr>(d_data);
  const CUresult result = reinterpret_cast<GetAddressRange>(function)(&base, &size_bytes, address);
  return result == CUDA_SUCCESS ? size_bytes - (address - base) : 0;
}

// Whether `d_data` is memory of that device.
bool IsOn(int ordinal, const std::byte* d_data) {
  cudaPointerAttributes attributes = {};
  return cudaPointerGetAttributes(&attributes, d_data) == cudaSuccess &&
         attributes.type == cudaMemoryTypeDevice && attributes.device == ordinal;
}

}  // namespace

OpenedRegion CudaRegionOpener::Open(const RegionSpec& spec) {
  if (const auto* system = std::get_if<SystemRegionSource>(&spec.source)) {
    return OpenSystem(*system, spec.size_bytes);
  }
  return OpenCuda(std::get<CudaRegionSource>(spec.source), spec.size_bytes);
}

OpenedRegion CudaRegionOpener::OpenSystem(const SystemRegionSource& source,
                                          uint64_t size_bytes) const {
  auto opened = SharedFile::Open(source, size_bytes, prefix_);
  if (const auto* refusal = std::get_if<RegionRefusal>(&opened)) return *refusal;
  SharedFile file = std::get<SharedFile>(std::move(opened));
  const int ordinal = ordinals_.front();
  cudaError_t error = cudaSetDevice(ordinal);
  if (error == cudaSuccess) {
    error = cudaHostRegister(file.data(), file.mapped_bytes(),
                             cudaHostRegisterPortable | cudaHostRegisterMapped);
  }
  if (error != cudaSuccess) {
    LogAndForget("cudaHostRegister", error);
    return RegionRefusal{RegionFault::kNoMemory};
  }
  std::byte* const data = file.data();
  auto region = std::make_unique<PinnedRegion>(std::move(file), ordinal);
  void* d_data = nullptr;
  error = cudaHostGetDevicePointer(&d_data, data, 0);
  if (error == cudaSuccess && d_data == data) return region;
  LogAndForget("cudaHostGetDevicePointer", error);
  return RegionRefusal{RegionFault::kNoMemory};
}

OpenedRegion CudaRegionOpener::OpenCuda(const CudaRegionSource& source, uint64_t size_bytes) const {
  if (std::find(ordinals_.begin(), ordinals_.end(), source.device) == ordinals_.end()) {
    return RegionRefusal{RegionFault::kDevice, source.device};
  }
  cudaIpcMemHandle_t handle;
  if (source.handle.size() != sizeof(handle)) return RegionRefusal{RegionFault::kHandle};
  std::memcpy(&handle, source.handle.data(), sizeof(handle));
  const auto ordinal = static_cast<int>(source.device);
  void* d_data = nullptr;
  cudaError_t error = cudaSetDevice(ordinal);
  if (error == cudaSuccess) {
    error = cudaIpcOpenMemHandle(&d_data, handle, cudaIpcMemLazyEnablePeerAccess);
  }
  if (error != cudaSuccess) {
    LogAndForget("cudaIpcOpenMemHandle", error);
    return RegionRefusal{RegionFault::kHandle};
  }
  auto region = std::make_unique<CudaRegion>(static_cast<std::byte*>(d_data), ordinal);
  if (!IsOn(ordinal, region->data())) return RegionRefusal{RegionFault::kHandle};
  // A larger size would let a request end this process with an illegal address.
  const size_t extent_bytes = ExtentOf(region->data());
  if (size_bytes > extent_bytes) {
    return RegionRefusal{RegionFault::kSize, static_cast<int64_t>(extent_bytes)};
  }
  return region;
}

}  // namespace swiglu::server
