// SPDX-License-Identifier: Apache-2.0
//
// Samples figures of the CUDA devices for the metrics page. It asks the driver on a thread of its
// own, so that neither a reader of the page nor a request ever waits for the driver.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "server/core/gpu_figures.h"
#include "server/gpu/device_choice.h"
#include "server/gpu/nvml.h"

namespace swiglu::server {

// The memory in use on that CUDA device, by this process and all others; 0 if it cannot be read.
// Asks the driver, which takes some microseconds.
int64_t CudaMemoryUsedBytes(int ordinal);

struct GpuMonitorOptions {
  // The time from the end of one sample to the next sample. > 0.
  std::chrono::milliseconds interval{1000};
  // The NVML library to open: a name for the dynamic loader, or a path.
  std::string nvml_library = kNvmlLibrary;
  // How long the destructor waits for the driver.
  std::chrono::milliseconds patience{500};
};

// Samples every device in the constructor, and then once per interval until the destructor. Does
// nothing if there are no devices. Thread-safe.
class GpuMonitor {
 public:
  using Clock = std::chrono::steady_clock;

  // The age of the oldest values that `figures` and `memory_used_bytes` return. Values become older
  // than this if the driver hangs.
  static constexpr std::chrono::seconds kMaxAge{10};

  // Opens NVML and takes the first sample before it returns. If NVML cannot be opened, or does not
  // know a device, logs that and continues without these figures.
  explicit GpuMonitor(std::vector<DeviceInfo> devices, GpuMonitorOptions options = {});

  // Waits at most `patience` for a sample in progress. If the driver hangs longer, the thread keeps
  // running.
  ~GpuMonitor();
  GpuMonitor(const GpuMonitor&) = delete;
  GpuMonitor& operator=(const GpuMonitor&) = delete;

  // The last figures of the device with that CUDA ordinal. nullopt if NVML does not know the
  // device, or if the figures are older than `kMaxAge`. Does not wait for the driver.
  std::optional<GpuFigures> figures(int ordinal, Clock::time_point now = Clock::now()) const;

  // The memory in use on that device, by all processes, as CUDA reports it. nullopt if CUDA does
  // not report it, or if the value is older than `kMaxAge`. Does not wait for the driver.
  std::optional<int64_t> memory_used_bytes(int ordinal, Clock::time_point now = Clock::now()) const;

 private:
  class Watch;

  std::shared_ptr<Watch> watch_;  // shared with the thread
  std::thread thread_;            // not started without devices
};

}  // namespace swiglu::server
