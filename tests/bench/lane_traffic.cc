// SPDX-License-Identifier: Apache-2.0
//
// Launches, and launches from completions.
#include "tests/bench/lane_traffic.h"

#include <cstdio>
#include <cstdlib>
#include <utility>

#include "absl/synchronization/notification.h"

namespace swiglu::bench {
namespace {

using Clock = std::chrono::steady_clock;

void CheckResult(const server::LaneResult& result) {
  if (result.execution.status.ok()) return;
  std::fprintf(stderr, "a batch failed: %s\n", result.execution.status.ToString().c_str());
  std::exit(1);
}

}  // namespace

std::chrono::duration<double> RunAlone(server::Lane& lane, const server::Batch& batch,
                                       const Planner& planner) {
  Clock::time_point finished_at;
  absl::Notification finished;
  const Clock::time_point begun_at = Clock::now();
  lane.Run(batch, planner(batch), [&](const server::LaneResult& result) {
    finished_at = Clock::now();
    CheckResult(result);
    finished.Notify();
  });
  finished.WaitForNotification();
  return finished_at - begun_at;
}

LaneTraffic::LaneTraffic(std::vector<server::Lane*> lanes,
                         std::vector<const server::Batch*> batches, Planner planner)
    : lanes_(std::move(lanes)),
      batches_(std::move(batches)),
      planner_(std::move(planner)),
      begun_at_(Clock::now()),
      running_(static_cast<int>(lanes_.size())) {
  for (size_t i = 0; i < lanes_.size(); ++i) Launch(i);
}

std::chrono::duration<double> LaneTraffic::Stop() {
  stopping_ = true;
  running_.Wait();
  return (Clock::now() - begun_at_) / static_cast<double>(num_done_);
}

void LaneTraffic::Launch(size_t i) {
  lanes_[i]->Run(*batches_[i], planner_(*batches_[i]), [this, i](const auto& result) {
    CheckResult(result);
    ++num_done_;
    if (stopping_) {
      running_.DecrementCount();
    } else {
      Launch(i);
    }
  });
}

}  // namespace swiglu::bench
