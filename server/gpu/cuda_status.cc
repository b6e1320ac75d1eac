// SPDX-License-Identifier: Apache-2.0
//
// CUDA's errors by kind. The sticky ones are those of which CUDA 13.0's driver_types.h says that
// the process must be terminated and relaunched, and three after which the device's context or
// memory is lost as well.
#include "server/gpu/cuda_status.h"

#include "absl/strings/str_cat.h"
#include "server/gpu/device_faults.h"

namespace swiglu::server {

DeviceError ClassifyCudaError(cudaError_t error) {
  switch (error) {
    case cudaErrorMemoryAllocation:
      return DeviceError::kOutOfMemory;
    case cudaErrorContained:
    case cudaErrorIllegalAddress:
    case cudaErrorLaunchTimeout:
    case cudaErrorAssert:
    case cudaErrorHardwareStackError:
    case cudaErrorIllegalInstruction:
    case cudaErrorMisalignedAddress:
    case cudaErrorInvalidAddressSpace:
    case cudaErrorInvalidPc:
    case cudaErrorLaunchFailure:
    case cudaErrorTensorMemoryLeak:
    case cudaErrorMpsClientTerminated:
    case cudaErrorExternalDevice:
      return DeviceError::kSticky;
    case cudaErrorECCUncorrectable:
    case cudaErrorNvlinkUncorrectable:
    case cudaErrorContextIsDestroyed:
      return DeviceError::kSticky;
    default:
      return DeviceError::kOther;
  }
}

absl::Status CudaStatus(cudaError_t error, int ordinal) {
  if (error == cudaSuccess) return absl::OkStatus();
  switch (ClassifyCudaError(error)) {
    case DeviceError::kSticky:
      return StickyStatus(ordinal, DescribeCudaError(error));
    case DeviceError::kOutOfMemory:
      return absl::ResourceExhaustedError(absl::StrCat("device ", ordinal, " is out of memory"));
    case DeviceError::kOther:
      break;
  }
  return absl::InternalError(absl::StrCat("device ", ordinal, ": ", DescribeCudaError(error)));
}

std::string DescribeCudaError(cudaError_t error) {
  return absl::StrCat(cudaGetErrorName(error), ": ", cudaGetErrorString(error));
}

}  // namespace swiglu::server
