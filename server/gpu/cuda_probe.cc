// SPDX-License-Identifier: Apache-2.0
//
// Drivers, versions and devices.
#include "server/gpu/cuda_probe.h"

#include "absl/strings/str_cat.h"
#include "server/gpu/cuda_handles.h"
#include "server/gpu/cuda_status.h"

namespace swiglu::server {
namespace {

int DriverVersion() {
  int version = 0;
  return cudaDriverGetVersion(&version) == cudaSuccess ? version : 0;
}

std::string VersionText(int version) {
  return absl::StrCat(version / 1000, ".", version % 1000 / 10);
}

// "" if it cannot be had: only figures of the device are missing then.
std::string PciBusId(int ordinal) {
  char text[32] = {};
  if (cudaDeviceGetPCIBusId(text, sizeof(text), ordinal) == cudaSuccess) return text;
  cudaGetLastError();
  return "";
}

}  // namespace

absl::StatusOr<std::vector<DeviceInfo>> FindCudaDevices() {
  int num_devices = 0;
  const cudaError_t error = cudaGetDeviceCount(&num_devices);
  if (error != cudaSuccess) {
    cudaGetLastError();
    return ProbeStatus(error, DriverVersion(), CUDART_VERSION);
  }
  if (num_devices == 0) return ProbeStatus(cudaErrorNoDevice, DriverVersion(), CUDART_VERSION);

  std::vector<DeviceInfo> devices;
  for (int ordinal = 0; ordinal < num_devices; ++ordinal) {
    cudaDeviceProp properties;
    const cudaError_t status = cudaGetDeviceProperties(&properties, ordinal);
    if (status != cudaSuccess) {
      cudaGetLastError();
      return absl::FailedPreconditionError(
          absl::StrCat("CUDA device ", ordinal, " does not answer: ", DescribeCudaError(status)));
    }
    devices.push_back({ordinal, properties.name, PciBusId(ordinal)});
  }
  return devices;
}

absl::Status ProbeStatus(cudaError_t error, int driver_version, int runtime_version) {
  if (error == cudaSuccess) return absl::OkStatus();
  if (driver_version == 0) return absl::FailedPreconditionError("no NVIDIA driver");
  if (error == cudaErrorNoDevice) return absl::FailedPreconditionError("no CUDA device found");
  if (error == cudaErrorInsufficientDriver) {
    return absl::FailedPreconditionError(
        absl::StrCat("the NVIDIA driver supports CUDA ", VersionText(driver_version),
                     " at most; this build needs ", VersionText(runtime_version)));
  }
  return absl::FailedPreconditionError(
      absl::StrCat("CUDA does not start: ", DescribeCudaError(error)));
}

std::string CudaDriverVersion() { return VersionText(DriverVersion()); }

}  // namespace swiglu::server
