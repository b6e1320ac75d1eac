// SPDX-License-Identifier: Apache-2.0
//
// What a GPU says about itself, as plain values: `server/gpu` asks the driver for it,
// `server/metrics` shows it. Knows neither.
#pragma once

#include <optional>
#include <string>

namespace swiglu::server {

// Why a GPU runs slower than it could.
struct ClockThrottling {
  bool thermal = false;   // it is too hot
  bool power = false;     // it is at its power limit, as it may well be under full load
  bool hardware = false;  // the board slows it down: heat or current beyond the driver's control,
                          // or a power brake from outside
};

// One GPU at one moment. What the driver does not say is left out.
struct GpuFigures {
  // "GPU-" and 32 hexadecimal digits in groups; empty if unknown.
  std::string uuid;
  // Share of the last moments in which at least one kernel ran, 0 to 1.
  std::optional<double> utilization_ratio;
  // Of all processes, and what the driver keeps for itself.
  std::optional<double> memory_used_bytes;
  std::optional<double> memory_total_bytes;
  std::optional<double> power_watts;
  std::optional<double> power_limit_watts;
  std::optional<double> temperature_celsius;
  std::optional<ClockThrottling> throttling;
  // Since the driver was loaded.
  std::optional<double> energy_joules;
  std::optional<double> corrected_ecc_errors;
  std::optional<double> uncorrected_ecc_errors;
};

}  // namespace swiglu::server
