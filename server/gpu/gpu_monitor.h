// SPDX-License-Identifier: Apache-2.0
//
// Keeps an eye on the CUDA devices for the metrics page. It asks the drivers on a thread of its
// own, so that neither a reader of the page nor a request ever waits for a driver.
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

// Memory of that CUDA device which is in use, by this process or any other; 0 where that cannot be
// read. Asks the driver: some microseconds.
int64_t CudaMemoryUsedBytes(int ordinal);

struct GpuMonitorOptions {
  // From the end of one sample to the next. > 0.
  std::chrono::milliseconds interval{1000};
  // What to open for NVML: a name for the loader, or a path.
  std::string nvml_library = kNvmlLibrary;
  // How long its destruction waits for a driver.
  std::chrono::milliseconds patience{500};
};

// Samples every device when it is constructed, and then at every interval until its destruction.
// Without devices it does nothing. Thread-safe.
class GpuMonitor {
 public:
  using Clock = std::chrono::steady_clock;

  // Figures older than this are not given out: a driver that hangs brings no new ones.
  static constexpr std::chrono::seconds kMaxAge{10};

  // Opens NVML and takes the first sample, so that all figures are there when it returns. Logs in
  // one line which figures are not available, and goes on without them.
  explicit GpuMonitor(std::vector<DeviceInfo> devices, GpuMonitorOptions options = {});

  // Waits for the sample that is being taken, for `patience` at most. If the driver hangs, the
  // thread is left behind.
  ~GpuMonitor();
  GpuMonitor(const GpuMonitor&) = delete;
  GpuMonitor& operator=(const GpuMonitor&) = delete;

  // The last figures of the device with that CUDA ordinal. nullopt if NVML does not know the
  // device, or has given no figures of it for `kMaxAge`. Does not wait for a driver.
  std::optional<GpuFigures> figures(int ordinal, Clock::time_point now = Clock::now()) const;

  // Memory of that device which is in use, by this process or any other, as CUDA sees it. nullopt
  // if it cannot be read, or has not been read for `kMaxAge`. Does not wait for a driver.
  std::optional<int64_t> memory_used_bytes(int ordinal, Clock::time_point now = Clock::now()) const;

 private:
  class Watch;

  std::shared_ptr<Watch> watch_;  // shared with the thread
  std::thread thread_;            // none without devices
};

}  // namespace swiglu::server
