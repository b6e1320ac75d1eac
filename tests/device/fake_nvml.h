// SPDX-License-Identifier: Apache-2.0
//
// The controls of the NVML that tests open in place of the driver's: what it answers, and a gate
// that it can be held at. The library is opened by path, so a test reaches its controls through the
// loader, too.
#pragma once

#include <condition_variable>
#include <mutex>
#include <set>
#include <string>

namespace swiglu::server {

// What the library answers, and what it was asked. One GPU.
struct FakeNvmlState {
  // What nvmlInit_v2 returns.
  int init_result = 0;
  // Where the GPU is.
  std::string pci_bus_id = "0000:1B:00.0";
  // Names of functions that fail.
  std::set<std::string> failing;
  // Asking for the utilization waits for as long as this is set.
  bool held = false;

  unsigned utilization_percent = 37;
  unsigned long long memory_total_bytes = 85'899'345'920;
  unsigned long long memory_used_bytes = 1'073'741'824;
  unsigned power_milliwatts = 123'456;
  unsigned power_limit_milliwatts = 700'000;
  unsigned long long energy_millijoules = 98'765'432'100;
  unsigned celsius = 41;
  unsigned long long throttle_reasons = 0;
  unsigned long long corrected_ecc_errors = 3;
  unsigned long long uncorrected_ecc_errors = 1;

  // How often the library was started, stopped, and asked for the utilization.
  int num_inits = 0;
  int num_shutdowns = 0;
  int num_samples = 0;
};

// The state with what guards it.
struct FakeNvml : FakeNvmlState {
  std::mutex mutex;
  std::condition_variable changed;
};

// The library's own symbol that returns its controls.
inline constexpr char kFakeNvmlSymbol[] = "swiglu_fake_nvml";
using GetFakeNvml = FakeNvml* (*)();

}  // namespace swiglu::server
