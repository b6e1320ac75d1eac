// SPDX-License-Identifier: Apache-2.0
//
// The memory of GPUs, in builds without CUDA.
#include "client/python/gpu_memory.h"

namespace swiglu::python {

struct GpuMemory::Allocations {};

GpuMemory::GpuMemory(int64_t /*server_device*/) {}
GpuMemory::~GpuMemory() = default;

absl::StatusOr<client::RegionPart> GpuMemory::Share(const client::Client& /*client*/,
                                                    absl::Span<const std::byte> /*bytes*/,
                                                    absl::Time /*deadline*/) {
  return WaitForStream(0, 0);
}

void GpuMemory::Forget(const std::string& /*name*/) {}
void GpuMemory::ForgetAll() {}

absl::Status WaitForStream(int /*device*/, uintptr_t /*stream*/) {
  return absl::UnimplementedError(
      "this package is built without CUDA, so it takes no memory of a GPU");
}

}  // namespace swiglu::python
