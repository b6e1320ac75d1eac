// SPDX-License-Identifier: Apache-2.0
//
// The interface between the executor, which chooses a lane, and a device's lanes. `CudaLane`
// implements it; tests implement lanes of simulated devices.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>

#include "absl/functional/any_invocable.h"
#include "server/core/executor.h"
#include "server/core/observer.h"
#include "server/device/launch_plan.h"

namespace swiglu::server {

// Whether a batch that failed may have written some of its outputs.
enum class Outputs : uint8_t { kUntouched, kUnspecified };

// What a device did wrong.
struct DeviceFault {
  DeviceError kind = DeviceError::kOther;
  std::string description;  // for the log: "cudaErrorIllegalAddress: an illegal memory access"
  Outputs outputs = Outputs::kUnspecified;
};

// How a batch ended on a lane.
struct LaneResult {
  Execution execution;
  std::optional<DeviceFault> fault;  // set if and only if execution.status is an error
};

// Which batches a lane runs: element-wise ones, or of these only resident ones, which need no
// device buffer; or those of MLPs.
enum class LaneUse : uint8_t { kAny, kResident, kMlp };
inline constexpr int kNumLaneUses = 3;

// The lanes for `batch`.
inline LaneUse UseFor(const Batch& batch) {
  if (!IsElementwise(batch.model->op)) return LaneUse::kMlp;
  return batch.placement.is_resident ? LaneUse::kResident : LaneUse::kAny;
}

// Runs one batch at a time on one device. The destructor waits for the batch in flight, if any.
class Lane {
 public:
  using Finished = absl::AnyInvocable<void(const LaneResult&)>;

  virtual ~Lane() = default;

  // Starts `batch` according to `plan`, which was made for this batch. Calls `finished` exactly
  // once, on any thread and possibly before `Run` returns. By then the lane is free for the next
  // `Run`, and nothing touches the batch's memory any more. REQUIRES: the lane is free; `batch` and
  // the memory that it points to live until `finished` is called; at most kMaxSegments segments.
  virtual void Run(const Batch& batch, LaunchPlan plan, Finished finished) = 0;

  // How long threads have waited in `Run` until now, all together.
  virtual std::chrono::nanoseconds caller_wait_time() const { return {}; }
};

}  // namespace swiglu::server
