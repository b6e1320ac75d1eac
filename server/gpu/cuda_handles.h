// SPDX-License-Identifier: Apache-2.0
//
// Move-only owners of CUDA handles.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <memory>
#include <type_traits>

#include "absl/status/statusor.h"

namespace swiglu::server {

struct CudaStreamDeleter {
  using pointer = cudaStream_t;
  void operator()(cudaStream_t stream) const noexcept;
};
using CudaStream = std::unique_ptr<std::remove_pointer_t<cudaStream_t>, CudaStreamDeleter>;

struct CudaEventDeleter {
  using pointer = cudaEvent_t;
  void operator()(cudaEvent_t event) const noexcept;
};
using CudaEvent = std::unique_ptr<std::remove_pointer_t<cudaEvent_t>, CudaEventDeleter>;

struct CudaMemoryDeleter {
  void operator()(std::byte* d_data) const noexcept;
};
using CudaMemory = std::unique_ptr<std::byte, CudaMemoryDeleter>;

// Pinned host memory.
struct CudaHostMemoryDeleter {
  void operator()(std::byte* data) const noexcept;
};
using CudaHostMemory = std::unique_ptr<std::byte, CudaHostMemoryDeleter>;

// Makes `ordinal` the calling thread's device. Cheap if it already is.
absl::Status UseCudaDevice(int ordinal);

// Makes a stream on device `ordinal`. The stream does not wait for the default stream.
absl::StatusOr<CudaStream> MakeCudaStream(int ordinal);

// The purpose of an event. kWaiting: a thread can sleep until the event completes. kTiming: two
// such events measure the time between them.
enum class CudaEventKind { kWaiting, kTiming };

absl::StatusOr<CudaEvent> MakeCudaEvent(int ordinal, CudaEventKind kind);

// Allocates memory of device `ordinal`, aligned to 256 bytes. RESOURCE_EXHAUSTED if none is left.
absl::StatusOr<CudaMemory> MakeCudaMemory(int ordinal, size_t size_bytes);

// Allocates pinned host memory that every device may copy from, in the context of device `ordinal`.
// RESOURCE_EXHAUSTED if none is to be had.
absl::StatusOr<CudaHostMemory> MakeCudaHostMemory(int ordinal, size_t size_bytes);

}  // namespace swiglu::server
