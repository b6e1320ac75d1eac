// SPDX-License-Identifier: Apache-2.0
//
// Lanes of simulated devices: each holds its batch until the test ends it, well or badly.
#pragma once

#include <gtest/gtest.h>

#include <cstddef>
#include <deque>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "server/device/lane.h"
#include "server/device/lane_executor.h"

namespace swiglu::server {

// What lanes of simulated devices were given, in order. Outlives them. Thread-safe.
class FakeDevices {
 public:
  // A batch that a lane was given.
  struct Job {
    int device;  // position
    int lane;    // position on its device; those for resident batches come behind, then those for
                 // MLPs
    const Batch* batch;
    LaunchPlan plan;
    Lane::Finished finished;  // nullptr once it has been called
  };

  // Devices with these numbers of lanes each, and as many for resident batches and for MLPs as
  // `num_resident_lanes` and `num_mlp_lanes`; their ordinals are 10, 11 and so on.
  std::vector<LaneDevice> Make(const std::vector<int>& num_lanes, int num_resident_lanes = 0,
                               int num_mlp_lanes = 0) {
    std::vector<LaneDevice> devices;
    for (int device = 0; device < static_cast<int>(num_lanes.size()); ++device) {
      LaneDevice& made = devices.emplace_back();
      made.ordinal = 10 + device;
      made.description = absl::StrCat("fake:", 10 + device);
      int lane = 0;
      const auto add = [&](int count, std::vector<std::unique_ptr<Lane>>& lanes) {
        for (int i = 0; i < count; ++i) {
          lanes.push_back(std::make_unique<FakeLane>(*this, device, lane++));
        }
      };
      add(num_lanes[device], made.lanes);
      add(num_resident_lanes, made.resident_lanes);
      add(num_mlp_lanes, made.mlp_lanes);
    }
    return devices;
  }

  // From now on every batch ends this way inside `Run`.
  void EndAtOnce(LaneResult result) {
    absl::MutexLock lock(&mutex_);
    at_once_ = std::move(result);
  }

  size_t num_jobs() const {
    absl::MutexLock lock(&mutex_);
    return jobs_.size();
  }
  // REQUIRES: there is such a job, as counted from 0.
  const Job& job(size_t i) const {
    absl::MutexLock lock(&mutex_);
    return jobs_[i];
  }

  // Ends job `i` on the calling thread.
  void End(size_t i, const LaneResult& result = {}) {
    Lane::Finished finished;
    {
      absl::MutexLock lock(&mutex_);
      finished = std::exchange(jobs_[i].finished, nullptr);
    }
    finished(result);
  }

 private:
  class FakeLane final : public Lane {
   public:
    FakeLane(FakeDevices& devices, int device, int lane)
        : devices_(devices), device_(device), lane_(lane) {}

    void Run(const Batch& batch, LaunchPlan plan, Finished finished) override {
      devices_.Begin({device_, lane_, &batch, std::move(plan), std::move(finished)});
    }

    std::chrono::nanoseconds caller_wait_time() const override {
      return std::chrono::nanoseconds(1);
    }

   private:
    FakeDevices& devices_;
    const int device_;
    const int lane_;
  };

  void Begin(Job job) {
    std::optional<LaneResult> result;
    size_t i;
    {
      absl::MutexLock lock(&mutex_);
      for (const Job& other : jobs_) {
        const bool is_same_lane = other.device == job.device && other.lane == job.lane;
        EXPECT_FALSE(is_same_lane && other.finished != nullptr) << "the lane is busy";
      }
      i = jobs_.size();
      jobs_.push_back(std::move(job));
      result = at_once_;
    }
    if (result) End(i, *result);
  }

  mutable absl::Mutex mutex_;
  std::deque<Job> jobs_;  // references to its elements stay valid
  std::optional<LaneResult> at_once_;
};

// What a lane says of such an error of the device with that ordinal.
inline LaneResult FaultyResult(DeviceError kind, absl::Status status) {
  LaneResult result;
  result.execution.status = std::move(status);
  result.fault = DeviceFault{kind, "simulated"};
  return result;
}

}  // namespace swiglu::server
