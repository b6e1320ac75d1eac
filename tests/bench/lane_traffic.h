// SPDX-License-Identifier: Apache-2.0
//
// Batches through lanes without a pause: what a loaded server does to a device.
#pragma once

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <vector>

#include "absl/synchronization/blocking_counter.h"
#include "server/device/lane.h"

namespace swiglu::bench {

// How a batch is to go through a lane.
using Planner = std::function<server::LaunchPlan(const server::Batch&)>;

// One batch through `lane`: the time from its launch until its lane reports it.
std::chrono::duration<double> RunAlone(server::Lane& lane, const server::Batch& batch,
                                       const Planner& planner);

// From construction to `Stop` each lane runs its batch again and again, planned anew each time, and
// brings the next from the completion of the last, as the server does. Ends the program if a batch
// fails.
class LaneTraffic {
 public:
  // As many batches as lanes; both must outlive it.
  LaneTraffic(std::vector<server::Lane*> lanes, std::vector<const server::Batch*> batches,
              Planner planner);

  LaneTraffic(const LaneTraffic&) = delete;
  LaneTraffic& operator=(const LaneTraffic&) = delete;

  // Waits for the batches in flight and returns the time since the start, divided by the number of
  // batches. REQUIRES: not called before; must be called before destruction.
  std::chrono::duration<double> Stop();

 private:
  void Launch(size_t i);

  const std::vector<server::Lane*> lanes_;
  const std::vector<const server::Batch*> batches_;
  const Planner planner_;
  const std::chrono::steady_clock::time_point begun_at_;
  std::atomic<bool> stopping_{false};
  std::atomic<int64_t> num_done_{0};
  absl::BlockingCounter running_;  // lanes
};

}  // namespace swiglu::bench
