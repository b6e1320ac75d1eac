// SPDX-License-Identifier: Apache-2.0
//
// Creation and destruction of streams, events and device memory.
#include "server/gpu/cuda_handles.h"

#include "absl/strings/str_cat.h"
#include "server/gpu/cuda_status.h"
#include "server/log/log.h"

namespace swiglu::server {

void CudaStreamDeleter::operator()(cudaStream_t stream) const noexcept {
  const cudaError_t error = cudaStreamDestroy(stream);
  if (error != cudaSuccess) LOG(WARNING, "cudaStreamDestroy: {}", DescribeCudaError(error));
}

void CudaEventDeleter::operator()(cudaEvent_t event) const noexcept {
  const cudaError_t error = cudaEventDestroy(event);
  if (error != cudaSuccess) LOG(WARNING, "cudaEventDestroy: {}", DescribeCudaError(error));
}

void CudaMemoryDeleter::operator()(std::byte* d_data) const noexcept {
  const cudaError_t error = cudaFree(d_data);
  if (error != cudaSuccess) LOG(WARNING, "cudaFree: {}", DescribeCudaError(error));
}

void CudaHostMemoryDeleter::operator()(std::byte* data) const noexcept {
  const cudaError_t error = cudaFreeHost(data);
  if (error != cudaSuccess) LOG(WARNING, "cudaFreeHost: {}", DescribeCudaError(error));
}

absl::Status UseCudaDevice(int ordinal) { return CudaStatus(cudaSetDevice(ordinal), ordinal); }

absl::StatusOr<CudaStream> MakeCudaStream(int ordinal) {
  if (absl::Status status = UseCudaDevice(ordinal); !status.ok()) return status;
  cudaStream_t stream = nullptr;
  const cudaError_t error = cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking);
  if (error != cudaSuccess) return CudaStatus(error, ordinal);
  return CudaStream(stream);
}

absl::StatusOr<CudaEvent> MakeCudaEvent(int ordinal, CudaEventKind kind) {
  if (absl::Status status = UseCudaDevice(ordinal); !status.ok()) return status;
  cudaEvent_t event = nullptr;
  const unsigned flags = kind == CudaEventKind::kTiming
                             ? cudaEventDefault
                             : cudaEventDisableTiming | cudaEventBlockingSync;
  const cudaError_t error = cudaEventCreateWithFlags(&event, flags);
  if (error != cudaSuccess) return CudaStatus(error, ordinal);
  return CudaEvent(event);
}

absl::StatusOr<CudaMemory> MakeCudaMemory(int ordinal, size_t size_bytes) {
  if (absl::Status status = UseCudaDevice(ordinal); !status.ok()) return status;
  void* d_data = nullptr;
  const cudaError_t error = cudaMalloc(&d_data, size_bytes);
  if (error != cudaSuccess) return CudaStatus(error, ordinal);
  return CudaMemory(static_cast<std::byte*>(d_data));
}

absl::StatusOr<CudaHostMemory> MakeCudaHostMemory(int ordinal, size_t size_bytes) {
  if (absl::Status status = UseCudaDevice(ordinal); !status.ok()) return status;
  void* data = nullptr;
  const cudaError_t error = cudaHostAlloc(&data, size_bytes, cudaHostAllocPortable);
  if (error == cudaSuccess) return CudaHostMemory(static_cast<std::byte*>(data));
  cudaGetLastError();
  if (error != cudaErrorMemoryAllocation) return CudaStatus(error, ordinal);
  return absl::ResourceExhaustedError(
      absl::StrCat("no ", size_bytes, " bytes of pinned host memory are to be had"));
}

}  // namespace swiglu::server
