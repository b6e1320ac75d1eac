// SPDX-License-Identifier: Apache-2.0
//
// A stand-in for libnvidia-ml.so.1, whole or with gaps: WITHOUT_FIND lacks a function that nothing
// goes without, WITHOUT_NEWER those that an old driver lacks.
#include "tests/device/fake_nvml.h"

#include <cstring>

namespace {

using swiglu::server::FakeNvml;

constexpr int kSuccess = 0;
constexpr int kInvalidArgument = 2;
constexpr int kNotSupported = 3;
constexpr int kNotFound = 6;

FakeNvml fake;

// The only GPU, as a handle.
void* const kGpu = &fake;

// Gives `value` as the function of that name does, if it works.
template <typename Value>
int Answer(const char* function, void* gpu, const Value& value, Value* out) {
  const std::lock_guard<std::mutex> lock(fake.mutex);
  if (gpu != kGpu || out == nullptr) return kInvalidArgument;
  if (fake.failing.count(function) > 0) return kNotSupported;
  *out = value;
  return kSuccess;
}

}  // namespace

extern "C" {

FakeNvml* swiglu_fake_nvml() { return &fake; }

int nvmlInit_v2() {
  const std::lock_guard<std::mutex> lock(fake.mutex);
  ++fake.num_inits;
  return fake.init_result;
}

int nvmlShutdown() {
  const std::lock_guard<std::mutex> lock(fake.mutex);
  ++fake.num_shutdowns;
  fake.changed.notify_all();
  return kSuccess;
}

const char* nvmlErrorString(int error) {
  return error == kNotFound ? "Not Found" : error == kNotSupported ? "Not Supported" : "Odd";
}

#ifndef WITHOUT_FIND
int nvmlDeviceGetHandleByPciBusId_v2(const char* pci_bus_id, void** gpu) {
  const std::lock_guard<std::mutex> lock(fake.mutex);
  if (fake.pci_bus_id != pci_bus_id) return kNotFound;
  *gpu = kGpu;
  return kSuccess;
}
#endif

int nvmlDeviceGetUUID(void* gpu, char* text, unsigned size_bytes) {
  const char uuid[] = "GPU-01234567-89ab-cdef-0123-456789abcdef";
  char unused = 0;
  if (size_bytes < sizeof(uuid)) return kInvalidArgument;
  const int result = Answer("nvmlDeviceGetUUID", gpu, '\0', &unused);
  if (result == kSuccess) std::memcpy(text, uuid, sizeof(uuid));
  return result;
}

struct Utilization {
  unsigned gpu, memory;
};
int nvmlDeviceGetUtilizationRates(void* gpu, Utilization* out) {
  {
    std::unique_lock<std::mutex> lock(fake.mutex);
    ++fake.num_samples;
    fake.changed.notify_all();
    fake.changed.wait(lock, [] { return !fake.held; });
  }
  return Answer("nvmlDeviceGetUtilizationRates", gpu, {fake.utilization_percent, 99}, out);
}

struct Memory {
  unsigned long long total, free, used;
};
int nvmlDeviceGetMemoryInfo(void* gpu, Memory* out) {
  return Answer("nvmlDeviceGetMemoryInfo", gpu,
                {fake.memory_total_bytes, 7, fake.memory_used_bytes}, out);
}

int nvmlDeviceGetPowerUsage(void* gpu, unsigned* out) {
  return Answer("nvmlDeviceGetPowerUsage", gpu, fake.power_milliwatts, out);
}

int nvmlDeviceGetEnforcedPowerLimit(void* gpu, unsigned* out) {
  return Answer("nvmlDeviceGetEnforcedPowerLimit", gpu, fake.power_limit_milliwatts, out);
}

int nvmlDeviceGetTemperature(void* gpu, int sensor, unsigned* out) {
  if (sensor != 0) return kInvalidArgument;
  return Answer("nvmlDeviceGetTemperature", gpu, fake.celsius, out);
}

int nvmlDeviceGetTotalEccErrors(void* gpu, int kind, int since, unsigned long long* out) {
  if (since != 0) return kInvalidArgument;
  return Answer(kind == 0 ? "corrected" : "uncorrected", gpu,
                kind == 0 ? fake.corrected_ecc_errors : fake.uncorrected_ecc_errors, out);
}

#ifndef WITHOUT_NEWER
int nvmlDeviceGetTotalEnergyConsumption(void* gpu, unsigned long long* out) {
  return Answer("nvmlDeviceGetTotalEnergyConsumption", gpu, fake.energy_millijoules, out);
}

int nvmlDeviceGetCurrentClocksThrottleReasons(void* gpu, unsigned long long* out) {
  return Answer("nvmlDeviceGetCurrentClocksThrottleReasons", gpu, fake.throttle_reasons, out);
}
#endif

}  // extern "C"
