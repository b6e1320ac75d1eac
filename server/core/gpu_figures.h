// SPDX-License-Identifier: Apache-2.0
//
// What the driver reports about a GPU, as plain values. `server/gpu` asks the driver for them, and
// `server/metrics` shows them. This file depends on neither of the two.
#pragma once

#include <optional>
#include <string>

namespace swiglu::server {

// Why a GPU's clock is slower than it could be.
struct ClockThrottling {
  bool thermal = false;   // it is too hot
  bool power = false;     // it is at its power limit, which is normal under full load
  bool hardware = false;  // the board slows it down, because of heat or current that the driver
                          // does not control, or because of an external power brake
};

// One GPU at one moment. Values that the driver does not report are not set.
struct GpuFigures {
  // "GPU-" and 32 hexadecimal digits in groups; empty if unknown.
  std::string uuid;
  // The fraction of the last sample period in which at least one kernel ran, 0 to 1.
  std::optional<double> utilization_ratio;
  // The memory that all processes and the driver itself use.
  std::optional<double> memory_used_bytes;
  std::optional<double> memory_total_bytes;
  std::optional<double> power_watts;
  std::optional<double> power_limit_watts;
  std::optional<double> temperature_celsius;
  std::optional<ClockThrottling> throttling;
  // The next three values count from the time when the driver was loaded.
  std::optional<double> energy_joules;
  std::optional<double> corrected_ecc_errors;
  std::optional<double> uncorrected_ecc_errors;
};

}  // namespace swiglu::server
