// SPDX-License-Identifier: Apache-2.0
//
// The part of NVML's C interface that is used, and its units turned into base units. The interface
// is stable: functions get new names rather than new meanings.
#include "server/gpu/nvml.h"

#include <dlfcn.h>

#include <optional>
#include <type_traits>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace swiglu::server {
namespace {

using Gpu = Nvml::Gpu;

using NvmlReturn = int;
using Count = unsigned long long;
constexpr NvmlReturn kSuccess = 0;

struct NvmlUtilization {
  unsigned gpu_percent;
  unsigned memory_percent;
};

struct NvmlMemory {
  unsigned long long total_bytes;
  unsigned long long free_bytes;
  unsigned long long used_bytes;
};

constexpr int kTemperatureOfGpu = 0;
constexpr int kSinceDriverLoad = 0;
enum NvmlEccError : int { kCorrected = 0, kUncorrected = 1 };
constexpr unsigned kUuidBytes = 96;

// Bits of the reasons for lower clocks.
constexpr unsigned long long kSoftwarePowerCap = 0x04;
constexpr unsigned long long kHardwareSlowdown = 0x08;
constexpr unsigned long long kSoftwareThermal = 0x20;
constexpr unsigned long long kHardwareThermal = 0x40;
constexpr unsigned long long kHardwarePowerBrake = 0x80;

constexpr double kMilli = 1e-3;
constexpr double kPercent = 1e-2;

// The answer to a question of one value; none where it cannot be asked or is not answered.
template <typename Value, typename Question, typename... Details>
std::optional<Value> Ask(Question question, Gpu gpu, Details... details) {
  Value value{};
  if (question == nullptr || question(gpu, details..., &value) != kSuccess) return std::nullopt;
  return value;
}

template <typename Value>
std::optional<double> Scaled(const std::optional<Value>& value, double unit) {
  if (!value.has_value()) return std::nullopt;
  return static_cast<double>(*value) * unit;
}

absl::Status Unusable(const std::string& why) { return absl::FailedPreconditionError(why); }

}  // namespace

// What Load finds of the library; nullptr for what it does not have.
struct Nvml::Functions {
  NvmlReturn (*init)() = nullptr;
  NvmlReturn (*shutdown)() = nullptr;
  const char* (*error_string)(NvmlReturn) = nullptr;
  NvmlReturn (*find)(const char*, Gpu*) = nullptr;
  NvmlReturn (*uuid)(Gpu, char*, unsigned) = nullptr;
  NvmlReturn (*utilization)(Gpu, NvmlUtilization*) = nullptr;
  NvmlReturn (*memory)(Gpu, NvmlMemory*) = nullptr;
  NvmlReturn (*power_milliwatts)(Gpu, unsigned*) = nullptr;
  NvmlReturn (*power_limit_milliwatts)(Gpu, unsigned*) = nullptr;
  NvmlReturn (*energy_millijoules)(Gpu, unsigned long long*) = nullptr;
  NvmlReturn (*temperature)(Gpu, int, unsigned*) = nullptr;
  NvmlReturn (*throttle_reasons)(Gpu, unsigned long long*) = nullptr;
  NvmlReturn (*ecc_errors)(Gpu, int, int, unsigned long long*) = nullptr;

  // The name of a function that nothing goes without and that is not there, or nullptr.
  const char* Load(void* library);

  std::string Uuid(Gpu gpu) const;
  std::optional<ClockThrottling> Throttling(Gpu gpu) const;
};

const char* Nvml::Functions::Load(void* library) {
  const char* missing = nullptr;
  const auto find_optional = [library](const char* name, auto*& function) {
    function = reinterpret_cast<std::remove_reference_t<decltype(function)>>(dlsym(library, name));
  };
  const auto find_required = [&](const char* name, auto*& function) {
    find_optional(name, function);
    if (function == nullptr && missing == nullptr) missing = name;
  };
  find_required("nvmlInit_v2", init);
  find_required("nvmlShutdown", shutdown);
  find_required("nvmlErrorString", error_string);
  find_required("nvmlDeviceGetHandleByPciBusId_v2", find);
  find_optional("nvmlDeviceGetUUID", uuid);
  find_optional("nvmlDeviceGetUtilizationRates", utilization);
  find_optional("nvmlDeviceGetMemoryInfo", memory);
  find_optional("nvmlDeviceGetPowerUsage", power_milliwatts);
  find_optional("nvmlDeviceGetEnforcedPowerLimit", power_limit_milliwatts);
  find_optional("nvmlDeviceGetTotalEnergyConsumption", energy_millijoules);
  find_optional("nvmlDeviceGetTemperature", temperature);
  find_optional("nvmlDeviceGetCurrentClocksThrottleReasons", throttle_reasons);
  find_optional("nvmlDeviceGetTotalEccErrors", ecc_errors);
  return missing;
}

std::string Nvml::Functions::Uuid(Gpu gpu) const {
  char text[kUuidBytes] = {};
  if (uuid == nullptr || uuid(gpu, text, kUuidBytes) != kSuccess) return "";
  return text;
}

std::optional<ClockThrottling> Nvml::Functions::Throttling(Gpu gpu) const {
  const auto reasons = Ask<Count>(throttle_reasons, gpu);
  if (!reasons.has_value()) return std::nullopt;
  const auto any_of = [&reasons](unsigned long long bits) { return (*reasons & bits) != 0; };
  return ClockThrottling{.thermal = any_of(kSoftwareThermal | kHardwareThermal),
                         .power = any_of(kSoftwarePowerCap),
                         .hardware = any_of(kHardwareSlowdown | kHardwarePowerBrake)};
}

void Nvml::LibraryCloser::operator()(void* library) const noexcept { dlclose(library); }

absl::StatusOr<std::unique_ptr<Nvml>> Nvml::Open(const std::string& library) {
  Library opened(dlopen(library.c_str(), RTLD_NOW | RTLD_LOCAL));
  // What the loader says names folders of this machine.
  if (opened == nullptr) return Unusable(absl::StrCat(library, " cannot be loaded"));
  auto functions = std::make_unique<Functions>();
  if (const char* missing = functions->Load(opened.get())) {
    return Unusable(absl::StrCat(library, " has no ", missing));
  }
  const NvmlReturn started = functions->init();
  if (started != kSuccess) {
    return Unusable(absl::StrCat(library, " does not start: ", functions->error_string(started)));
  }
  return std::unique_ptr<Nvml>(new Nvml(std::move(opened), std::move(functions)));
}

Nvml::Nvml(Library library, std::unique_ptr<const Functions> functions)
    : library_(std::move(library)), functions_(std::move(functions)) {}

Nvml::~Nvml() { functions_->shutdown(); }

absl::StatusOr<Nvml::Gpu> Nvml::Find(const std::string& pci_bus_id) const {
  Gpu gpu = nullptr;
  const NvmlReturn found = functions_->find(pci_bus_id.c_str(), &gpu);
  if (found == kSuccess) return gpu;
  return Unusable(
      absl::StrCat("NVML has no GPU at ", pci_bus_id, ": ", functions_->error_string(found)));
}

GpuFigures Nvml::Read(Gpu gpu) const {
  GpuFigures figures;
  figures.uuid = functions_->Uuid(gpu);
  if (const auto utilization = Ask<NvmlUtilization>(functions_->utilization, gpu)) {
    figures.utilization_ratio = utilization->gpu_percent * kPercent;
  }
  if (const auto memory = Ask<NvmlMemory>(functions_->memory, gpu)) {
    figures.memory_used_bytes = static_cast<double>(memory->used_bytes);
    figures.memory_total_bytes = static_cast<double>(memory->total_bytes);
  }
  figures.power_watts = Scaled(Ask<unsigned>(functions_->power_milliwatts, gpu), kMilli);
  figures.power_limit_watts =
      Scaled(Ask<unsigned>(functions_->power_limit_milliwatts, gpu), kMilli);
  figures.energy_joules = Scaled(Ask<Count>(functions_->energy_millijoules, gpu), kMilli);
  figures.temperature_celsius = Ask<unsigned>(functions_->temperature, gpu, kTemperatureOfGpu);
  figures.throttling = functions_->Throttling(gpu);
  const auto ecc_errors = [&](NvmlEccError kind) {
    return Scaled(Ask<Count>(functions_->ecc_errors, gpu, kind, kSinceDriverLoad), 1);
  };
  figures.corrected_ecc_errors = ecc_errors(kCorrected);
  figures.uncorrected_ecc_errors = ecc_errors(kUncorrected);
  return figures;
}

}  // namespace swiglu::server
