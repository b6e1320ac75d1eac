// SPDX-License-Identifier: Apache-2.0
//
// The executor over simulated devices: which lane takes a batch, what an error does to later ones,
// and what the destructor waits for.
#include "server/device/lane_executor.h"

#include <gtest/gtest.h>

#include <array>
#include <atomic>
#include <deque>
#include <memory>
#include <thread>
#include <utility>
#include <vector>

#include "absl/synchronization/notification.h"
#include "server/memory/memory_source.h"
#include "tests/byte_units.h"
#include "tests/device/fake_lane.h"

namespace swiglu::server {
namespace {

const Model* const kModel = FindModel("swiglu_forward_fp16");

// Writes down the reports of device errors.
class FaultRecorder final : public Observer {
 public:
  void RequestFinished(const RequestRecord&) override {}
  void RequestSent(const Model*, std::chrono::nanoseconds, std::chrono::nanoseconds) override {}
  void BatchFinished(const BatchRecord&) override {}
  void DeviceFailed(int device, DeviceError kind) override { faults.emplace_back(device, kind); }

  std::vector<std::pair<int, DeviceError>> faults;
};
using Faults = decltype(FaultRecorder::faults);

// Weights with copies on the devices with these ordinals.
class PlacedWeights final : public Weights {
 public:
  explicit PlacedWeights(const std::vector<int>& ordinals) : Weights("", PlacesOf(ordinals)) {}

 private:
  static std::vector<WeightsPlace> PlacesOf(const std::vector<int>& ordinals) {
    std::vector<WeightsPlace> places;
    for (const int ordinal : ordinals) places.push_back({ordinal, 1});
    return places;
  }
};

class LaneExecutorTest : public testing::Test {
 protected:
  void MakeDevices(const std::vector<int>& num_lanes, int num_resident_lanes = 0,
                   int num_mlp_lanes = 0) {
    executor_ = std::make_unique<LaneExecutor>(
        devices_.Make(num_lanes, num_resident_lanes, num_mlp_lanes),
        std::make_unique<CachingSlabPool>(MakeHostMemory(),
                                          CachingSlabPoolOptions{.capacity_bytes = 1 << 20}),
        std::make_unique<DeviceFaults>(&recorder_));
  }

  // Runs a forward FP16 batch of one segment and returns its number: outcomes_[number] fills up
  // with what its `done` is told.
  size_t Run(int64_t num_elements, Placement placement = {}) {
    Batch& batch = batches_.emplace_back(Batch{kModel, {}});
    if (const Weights* const weights = std::exchange(mlp_weights_, nullptr)) {
      batch.model = &mlp_;
      batch.weights = weights;
    }
    batch.placement = placement;
    Segment& segment = batch.segments.emplace_back();
    segment.num_elements = num_elements;
    segment.inputs.fill(memory_.data());
    segment.outputs.fill(memory_.data());
    const size_t number = outcomes_.size();
    outcomes_.emplace_back();
    executor_->Run(batch, [this, number](const Execution& execution) {
      outcomes_[number].push_back(execution);
    });
    return number;
  }

  // As `Run`, for rows of an MLP with weights.
  size_t RunMlp(const Weights& weights, int64_t num_rows, Placement placement = {}) {
    const size_t number = outcomes_.size();
    mlp_weights_ = &weights;
    Run(num_rows * mlp_.row_elements, placement);
    return number;
  }

  // What the only call of that batch's `done` said.
  absl::Status StatusOf(size_t number) {
    EXPECT_EQ(outcomes_[number].size(), 1u) << "batch " << number;
    return outcomes_[number].empty() ? absl::UnknownError("not done") : outcomes_[number][0].status;
  }

  int DeviceOf(size_t job) { return devices_.job(job).device; }
  int LaneOf(size_t job) { return devices_.job(job).lane; }

  const Model mlp_ = MakeMlpModel({.mlp = "m", .hidden = 64, .max_batch_rows = 512});
  const Weights* mlp_weights_ = nullptr;  // of the next batch
  FakeDevices devices_;
  FaultRecorder recorder_;
  std::deque<Batch> batches_;
  std::array<std::byte, 4096> memory_{};  // where the tensors of all batches lie; nobody computes
  std::deque<std::vector<Execution>> outcomes_;
  std::unique_ptr<LaneExecutor> executor_;
};

TEST_F(LaneExecutorTest, HasTheLanesOfAllDevicesAndNamesThem) {
  MakeDevices({1, 2, 3});
  EXPECT_EQ(executor_->num_lanes(), 6);
  EXPECT_EQ(executor_->description(), "fake:10, fake:11, fake:12");
  EXPECT_TRUE(executor_->healthy());
}

TEST_F(LaneExecutorTest, AddsUpTheLanesForLargeBatches) {
  MakeDevices({2, 2});
  EXPECT_EQ(executor_->num_large_lanes(), 0);
  std::vector<LaneDevice> devices = devices_.Make({2, 3});
  for (LaneDevice& device : devices) device.num_large_lanes = 1;
  const LaneExecutor executor(
      std::move(devices),
      std::make_unique<CachingSlabPool>(MakeHostMemory(),
                                        CachingSlabPoolOptions{.capacity_bytes = 1 << 20}),
      std::make_unique<DeviceFaults>(&recorder_));
  EXPECT_EQ(executor.num_lanes(), 5);
  EXPECT_EQ(executor.num_large_lanes(), 2);
  // Forward then reads and writes 4 MiB, and backward more.
  EXPECT_EQ(executor.large_batch_bytes(), (int64_t{8} << 20) / 3);
}

TEST_F(LaneExecutorTest, TakesTheDeviceWithTheFewestBytesOfTwo) {
  MakeDevices({3, 3});
  for (const int64_t size : {100, 30, 40, 40}) Run(size);
  EXPECT_EQ(DeviceOf(0), 0);  // both idle: the first
  EXPECT_EQ(DeviceOf(1), 1);  // 100 and 0
  EXPECT_EQ(DeviceOf(2), 1);  // 100 and 30
  EXPECT_EQ(DeviceOf(3), 1);  // 100 and 70
  devices_.End(0);            // 0 and 110
  Run(10);
  EXPECT_EQ(DeviceOf(4), 0);
  for (const size_t job : {1, 2, 3, 4}) devices_.End(job);
}

TEST_F(LaneExecutorTest, TakesTheDeviceWithTheFewestBytesOfThree) {
  MakeDevices({2, 2, 2});
  for (const int64_t size : {50, 20, 30, 5}) Run(size);
  EXPECT_EQ(DeviceOf(0), 0);
  EXPECT_EQ(DeviceOf(1), 1);
  EXPECT_EQ(DeviceOf(2), 2);
  EXPECT_EQ(DeviceOf(3), 1);  // 50, 20 and 30
  Run(5);
  EXPECT_EQ(DeviceOf(4), 2);  // 50, 25 without a free lane, and 30
  Run(5);
  EXPECT_EQ(DeviceOf(5), 0);  // the only one with a free lane
  devices_.End(3);
  devices_.End(0);
  Run(5);
  EXPECT_EQ(DeviceOf(6), 0);  // 5, 20 and 35
  for (const size_t job : {1, 2, 4, 5, 6}) devices_.End(job);
}

TEST_F(LaneExecutorTest, CountsTheBytesOfABatchThatFailed) {
  MakeDevices({2, 2});
  Run(100);
  Run(50);
  devices_.End(0, FaultyResult(DeviceError::kOther, absl::InternalError("device 10: odd")));
  Run(1);
  EXPECT_EQ(DeviceOf(2), 0);
  devices_.End(1);
  devices_.End(2);
}

TEST_F(LaneExecutorTest, SharesALightLoadOutAmongDevicesByBytes) {
  MakeDevices({2, 2});
  const std::vector<std::pair<int64_t, int>> sizes_and_devices = {{100, 0}, {60, 1}, {60, 1},
                                                                  {30, 0},  {10, 1}, {10, 0}};
  for (size_t job = 0; job < sizes_and_devices.size(); ++job) {
    Run(sizes_and_devices[job].first);  // with nothing else in flight
    EXPECT_EQ(DeviceOf(job), sizes_and_devices[job].second) << "batch " << job;
    devices_.End(job);
  }
}

TEST_F(LaneExecutorTest, UsesTheLanesOfADeviceInTurn) {
  MakeDevices({3});
  for (size_t job = 0; job < 4; ++job) {
    Run(1);
    EXPECT_EQ(LaneOf(job), static_cast<int>(job % 3));
    devices_.End(job);
  }
}

TEST_F(LaneExecutorTest, TakesTheLaneThatHasBeenFreeTheLongest) {
  MakeDevices({3});
  for (int i = 0; i < 3; ++i) Run(1);
  for (const size_t job : {2, 0, 1}) devices_.End(job);  // out of order
  for (int i = 0; i < 3; ++i) Run(1);
  EXPECT_EQ(LaneOf(3), 2);
  EXPECT_EQ(LaneOf(4), 0);
  EXPECT_EQ(LaneOf(5), 1);
  for (const size_t job : {3, 4, 5}) devices_.End(job);
}

TEST_F(LaneExecutorTest, TellsEachDoneWhatItsLaneSaidAndOnlyOnce) {
  MakeDevices({1, 1, 1});
  const size_t first = Run(1), second = Run(2), third = Run(3);
  LaneResult result;
  result.execution.path = Path::kStaged;
  result.execution.times.copy_in = std::chrono::nanoseconds(7);
  devices_.End(2, result);
  devices_.End(0);
  devices_.End(1, FaultyResult(DeviceError::kOther, absl::InternalError("device 11: odd")));
  EXPECT_EQ(StatusOf(first), absl::OkStatus());
  EXPECT_EQ(StatusOf(second), absl::InternalError("device 11: odd"));
  EXPECT_EQ(StatusOf(third), absl::OkStatus());
  EXPECT_EQ(outcomes_[third][0].path, Path::kStaged);
  EXPECT_EQ(outcomes_[third][0].times.copy_in.count(), 7);
}

TEST_F(LaneExecutorTest, TellsEachDoneWhichDeviceItWas) {
  MakeDevices({1, 1});
  const size_t first = Run(100);
  const size_t second = Run(100);
  devices_.End(1);
  devices_.End(0, FaultyResult(DeviceError::kOther, absl::InternalError("failed")));
  EXPECT_EQ(outcomes_[first].at(0).device, 10);
  EXPECT_EQ(outcomes_[second].at(0).device, 11);
}

TEST_F(LaneExecutorTest, PlansByWhatElseIsInFlightOnTheDevice) {
  MakeDevices({2, 2});
  Run(4 * kMiB);  // alone on device 0
  Run(4 * kMiB);  // alone on device 1
  Run(4 * kMiB);  // beside the first
  EXPECT_EQ(devices_.job(0).plan.path, Path::kMapped);
  EXPECT_EQ(devices_.job(1).plan.path, Path::kMapped);
  EXPECT_EQ(devices_.job(2).plan.path, Path::kStaged);
  for (const size_t job : {0, 1, 2}) devices_.End(job);
}

TEST_F(LaneExecutorTest, RunsABatchOnTheDeviceThatHasItsTensors) {
  MakeDevices({2, 2}, 1);
  Run(100, {.device = 11, .is_resident = true});
  Run(100, {.device = 11, .is_resident = false});
  EXPECT_EQ(DeviceOf(0), 1);
  EXPECT_EQ(DeviceOf(1), 1);
  EXPECT_EQ(devices_.job(0).plan.path, Path::kRegion);
  // Beside resident work, and mapped once that has ended.
  EXPECT_EQ(devices_.job(1).plan.path, Path::kStaged);
  devices_.End(0);
  devices_.End(1);
  Run(100, {.device = 11, .is_resident = false});
  EXPECT_EQ(devices_.job(2).plan.path, Path::kMapped);
  devices_.End(2);
}

TEST_F(LaneExecutorTest, ResidentBatchesHaveLanesOfTheirOwn) {
  MakeDevices({1, 1}, 2);
  EXPECT_EQ(executor_->num_lanes(), 2);
  EXPECT_EQ(executor_->num_resident_lanes(), 2);
  const Placement resident{.device = 10, .is_resident = true};
  Run(1, {.device = 10, .is_resident = false});
  for (int i = 0; i < 2; ++i) Run(1, resident);
  ASSERT_EQ(devices_.num_jobs(), 3u);
  EXPECT_EQ(LaneOf(0), 0);
  EXPECT_EQ(LaneOf(1), 1);
  EXPECT_EQ(LaneOf(2), 2);
  devices_.End(2);
  Run(1, resident);
  EXPECT_EQ(LaneOf(3), 2);
  // A batch whose tensors are elsewhere waits for the one lane that stages.
  Run(1, {.device = 10, .is_resident = false});
  EXPECT_EQ(devices_.num_jobs(), 4u);
  devices_.End(1);
  EXPECT_EQ(devices_.num_jobs(), 4u);
  devices_.End(0);
  ASSERT_EQ(devices_.num_jobs(), 5u);
  EXPECT_EQ(LaneOf(4), 0);
  devices_.End(3);
  devices_.End(4);
}

TEST_F(LaneExecutorTest, ResidentBytesDoNotMakeADeviceBusyForOthers) {
  MakeDevices({2, 2}, 1);
  Run(1000, {.device = 10, .is_resident = true});
  Run(10);
  EXPECT_EQ(DeviceOf(1), 0);
  Run(5);
  EXPECT_EQ(DeviceOf(2), 1);
  for (const size_t job : {0, 1, 2}) devices_.End(job);
}

TEST_F(LaneExecutorTest, AResidentBatchGivesBackNoLaneForOthers) {
  MakeDevices({1, 2}, 1);
  Run(1, {.device = 10, .is_resident = true});
  devices_.End(0);
  Run(10);    // on the first device, which has no lane left then
  Run(1000);  // on the second, which is the busier one from now on
  Run(5);
  ASSERT_EQ(devices_.num_jobs(), 4u);
  EXPECT_EQ(DeviceOf(3), 1);
  for (const size_t job : {1, 2, 3}) devices_.End(job);
}

TEST_F(LaneExecutorTest, ABatchWaitsForItsDeviceWhileOthersAreFree) {
  MakeDevices({1, 2});
  const Placement placement{.device = 10, .is_resident = false};
  Run(1, placement);
  const size_t second = Run(2, placement);
  const size_t other = Run(3);
  ASSERT_EQ(devices_.num_jobs(), 2u);
  EXPECT_EQ(DeviceOf(1), 1);
  devices_.End(0);
  ASSERT_EQ(devices_.num_jobs(), 3u);
  EXPECT_EQ(DeviceOf(2), 0);
  devices_.End(2);
  devices_.End(1);
  EXPECT_EQ(StatusOf(second), absl::OkStatus());
  EXPECT_EQ(StatusOf(other), absl::OkStatus());
}

TEST_F(LaneExecutorTest, BatchesOfMlpsHaveLanesOfTheirOwn) {
  MakeDevices({1, 1}, 1, 2);
  EXPECT_EQ(executor_->num_mlp_lanes(), 4);
  const PlacedWeights weights({11});
  for (int i = 0; i < 3; ++i) RunMlp(weights, 1);
  ASSERT_EQ(devices_.num_jobs(), 2u);
  for (const size_t job : {0, 1}) EXPECT_EQ(DeviceOf(job), 1);
  EXPECT_EQ(LaneOf(0), 2);
  EXPECT_EQ(LaneOf(1), 3);
  // Other batches do not wait for them. Beside kernels on device memory, they are staged.
  Run(1, {.device = 11, .is_resident = true});
  Run(1, {.device = 11, .is_resident = false});
  ASSERT_EQ(devices_.num_jobs(), 4u);
  EXPECT_EQ(devices_.job(3).plan.path, Path::kStaged);
  devices_.End(1);
  ASSERT_EQ(devices_.num_jobs(), 5u);
  EXPECT_EQ(LaneOf(4), 3);
  for (const size_t job : {0, 2, 3, 4}) devices_.End(job);
  Run(1, {.device = 11, .is_resident = false});
  EXPECT_EQ(devices_.job(5).plan.path, Path::kMapped);
  devices_.End(5);
}

TEST_F(LaneExecutorTest, AddsUpTheWaitsOfAllLanes) {
  MakeDevices({1, 2}, 1, 3);
  EXPECT_EQ(executor_->caller_wait_time().count(), 3 + 2 + 6);
}

TEST_F(LaneExecutorTest, SpreadsBatchesOverTheReplicasOfTheirWeights) {
  MakeDevices({1, 1, 1}, 0, 1);
  const PlacedWeights weights({10, 12});
  RunMlp(weights, 3);
  RunMlp(weights, 1);
  EXPECT_EQ(DeviceOf(0), 0);
  EXPECT_EQ(DeviceOf(1), 2);
  // The next ones wait: two where fewer tokens are, then one where there are fewer by then.
  RunMlp(weights, 1);
  RunMlp(weights, 2);
  RunMlp(weights, 1);
  devices_.End(1);
  EXPECT_EQ(DeviceOf(2), 2);
  devices_.End(2);
  EXPECT_EQ(DeviceOf(3), 2);
  devices_.End(0);
  EXPECT_EQ(DeviceOf(4), 0);
  devices_.End(3);
  devices_.End(4);
  // All are idle: the one that was given less until now.
  RunMlp(weights, 1);
  EXPECT_EQ(DeviceOf(5), 0);
  devices_.End(5);
}

TEST_F(LaneExecutorTest, RunsAnMlpWhereItsTensorsAreIfTheWeightsAreThereToo) {
  MakeDevices({1, 1}, 1, 3);
  const PlacedWeights both({10, 11});
  const PlacedWeights first({10});
  for (int i = 0; i < 2; ++i) RunMlp(both, 1, {.device = 11, .is_resident = true});
  RunMlp(first, 1, {.device = 11, .is_resident = true});
  EXPECT_EQ(DeviceOf(0), 1);
  EXPECT_EQ(DeviceOf(1), 1);
  EXPECT_EQ(DeviceOf(2), 0);
  for (const size_t job : {0, 1, 2}) devices_.End(job);
}

TEST_F(LaneExecutorTest, DoesNotHalveABatchOfAnMlp) {
  MakeDevices({1}, 0, 1);
  LaneResult result =
      FaultyResult(DeviceError::kOutOfMemory, absl::ResourceExhaustedError("simulated"));
  result.fault->outputs = Outputs::kUntouched;
  const PlacedWeights weights({10});
  const size_t number = RunMlp(weights, 8);
  devices_.End(0, result);
  EXPECT_EQ(devices_.num_jobs(), 1u);
  EXPECT_EQ(StatusOf(number), absl::ResourceExhaustedError("simulated"));
}

TEST_F(LaneExecutorTest, ABatchThatWaitsDoesNotRunOnceADeviceHasFailed) {
  MakeDevices({1, 2});
  const Placement placement{.device = 10, .is_resident = false};
  Run(1, placement);
  const size_t second = Run(2, placement);
  const size_t third = Run(3, placement);
  devices_.End(0, FaultyResult(DeviceError::kSticky, absl::InternalError("device 10 failed")));
  EXPECT_EQ(devices_.num_jobs(), 1u);
  const absl::Status refused = absl::UnavailableError("device 10 failed before the request ran");
  EXPECT_EQ(StatusOf(second), refused);
  EXPECT_EQ(StatusOf(third), refused);
}

TEST_F(LaneExecutorTest, AStickyErrorFailsEveryLaterBatchOnAllDevices) {
  MakeDevices({2, 1, 1});
  const size_t broken = Run(1), beside = Run(1);
  devices_.End(1, FaultyResult(DeviceError::kSticky, absl::InternalError("device 11 failed")));
  EXPECT_FALSE(executor_->healthy());
  EXPECT_EQ(StatusOf(beside), absl::InternalError("device 11 failed"));
  for (int i = 0; i < 4; ++i) {
    const size_t refused = Run(1);
    EXPECT_EQ(StatusOf(refused), absl::UnavailableError("device 11 failed before the request ran"));
    // It would have been the GPU's, and not the CPU's.
    EXPECT_EQ(outcomes_[refused][0].path, Path::kMapped);
  }
  EXPECT_EQ(devices_.num_jobs(), 2u);  // no lane was given any of them
  devices_.End(0);                     // what was in flight elsewhere still ends as it ends
  EXPECT_EQ(StatusOf(broken), absl::OkStatus());
}

TEST_F(LaneExecutorTest, ReportsADeviceThatFailedForGoodOnce) {
  MakeDevices({2, 1});
  for (int i = 0; i < 3; ++i) Run(1);
  devices_.End(0, FaultyResult(DeviceError::kSticky, absl::InternalError("device 10 failed")));
  devices_.End(2, FaultyResult(DeviceError::kSticky, absl::InternalError("device 10 failed")));
  devices_.End(1, FaultyResult(DeviceError::kSticky, absl::InternalError("device 11 failed")));
  EXPECT_EQ(recorder_.faults, (Faults{{10, DeviceError::kSticky}}));
  EXPECT_EQ(StatusOf(Run(1)), absl::UnavailableError("device 10 failed before the request ran"));
}

TEST_F(LaneExecutorTest, RunningOutOfMemoryIsNotForGood) {
  MakeDevices({1});
  const absl::Status exhausted = absl::ResourceExhaustedError("device 10 is out of memory");
  for (size_t job = 0; job < 2; ++job) {
    const size_t batch = Run(1);
    devices_.End(job, FaultyResult(DeviceError::kOutOfMemory, exhausted));
    EXPECT_EQ(StatusOf(batch), exhausted);
  }
  EXPECT_TRUE(executor_->healthy());
  EXPECT_EQ(recorder_.faults,
            (Faults{{10, DeviceError::kOutOfMemory}, {10, DeviceError::kOutOfMemory}}));
  const size_t last = Run(1);
  devices_.End(2);
  EXPECT_EQ(StatusOf(last), absl::OkStatus());
}

TEST_F(LaneExecutorTest, TriesSmallerPartsOnTheSameLaneWhenMemoryRunsOut) {
  MakeDevices({1});
  LaneResult exhausted =
      FaultyResult(DeviceError::kOutOfMemory, absl::ResourceExhaustedError("device 10 is full"));
  exhausted.fault->outputs = Outputs::kUntouched;
  const size_t batch = Run(1024);
  devices_.End(0, exhausted);
  ASSERT_EQ(devices_.num_jobs(), 2u);
  EXPECT_TRUE(outcomes_[batch].empty());
  EXPECT_EQ(devices_.job(1).batch->segments[0].num_elements, 512);
  devices_.End(1);
  ASSERT_EQ(devices_.num_jobs(), 3u);
  devices_.End(2);
  EXPECT_EQ(StatusOf(batch), absl::OkStatus());
  EXPECT_EQ(recorder_.faults, (Faults{{10, DeviceError::kOutOfMemory}}));
  // The lane is free again.
  const size_t last = Run(1);
  devices_.End(3);
  EXPECT_EQ(StatusOf(last), absl::OkStatus());
}

TEST_F(LaneExecutorTest, ALaunchThatFailsAtOnceFreesItsLane) {
  MakeDevices({1});
  devices_.EndAtOnce(FaultyResult(DeviceError::kOther, absl::InternalError("device 10: refused")));
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(StatusOf(Run(1)), absl::InternalError("device 10: refused"));
  }
  EXPECT_EQ(recorder_.faults.size(), 3u);
}

TEST_F(LaneExecutorTest, TheLaneIsFreeBeforeDoneIsCalled) {
  MakeDevices({1});
  const Batch batch{kModel, {}};
  size_t num_done = 0;
  executor_->Run(batch, [&](const Execution&) {
    ++num_done;
    executor_->Run(batch, [&](const Execution&) { ++num_done; });
  });
  devices_.End(0);
  ASSERT_EQ(devices_.num_jobs(), 2u);
  devices_.End(1);
  EXPECT_EQ(num_done, 2u);
}

TEST_F(LaneExecutorTest, TheDestructorWaitsForLanesAndForDones) {
  MakeDevices({1, 1});
  const Batch batch{kModel, {}};
  absl::Notification in_done, may_return, destroying;
  std::atomic<int> num_done{0};
  executor_->Run(batch, [&](const Execution&) {
    in_done.Notify();
    may_return.WaitForNotification();
    ++num_done;
  });
  executor_->Run(batch, [&](const Execution&) { ++num_done; });
  std::thread first_lane([&] { devices_.End(0); });
  in_done.WaitForNotification();
  std::thread destroyer([&] {
    destroying.Notify();
    executor_.reset();
    EXPECT_EQ(num_done, 2);
  });
  destroying.WaitForNotification();
  may_return.Notify();
  first_lane.join();
  devices_.End(1);
  destroyer.join();
}

}  // namespace
}  // namespace swiglu::server
