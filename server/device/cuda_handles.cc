// SPDX-License-Identifier: Apache-2.0
//
// Creation and destruction of streams and events.
#include "server/device/cuda_handles.h"

#include "server/device/cuda_status.h"
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

absl::Status UseCudaDevice(int ordinal) { return CudaStatus(cudaSetDevice(ordinal), ordinal); }

absl::StatusOr<CudaStream> MakeCudaStream(int ordinal) {
  if (absl::Status status = UseCudaDevice(ordinal); !status.ok()) return status;
  cudaStream_t stream = nullptr;
  const cudaError_t error = cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking);
  if (error != cudaSuccess) return CudaStatus(error, ordinal);
  return CudaStream(stream);
}

absl::StatusOr<CudaEvent> MakeCudaEvent(int ordinal) {
  if (absl::Status status = UseCudaDevice(ordinal); !status.ok()) return status;
  cudaEvent_t event = nullptr;
  const cudaError_t error =
      cudaEventCreateWithFlags(&event, cudaEventDisableTiming | cudaEventBlockingSync);
  if (error != cudaSuccess) return CudaStatus(error, ordinal);
  return CudaEvent(event);
}

}  // namespace swiglu::server
