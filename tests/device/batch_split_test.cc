// SPDX-License-Identifier: Apache-2.0
//
// How a batch that the device's memory does not do for is cut, and how its parts run.
#include "server/device/batch_split.h"

#include <gtest/gtest.h>

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "tests/batching/mlp_models.h"
#include "tests/device/fake_lane.h"

namespace swiglu::server {
namespace {

// In place, one segment after the other, as addresses that nobody reads.
Batch MakeBatch(const std::vector<int64_t>& sizes,
                const Model& model = GetModel(Op::kForward, Dtype::kFp32)) {
  Batch batch{&model, {}};
  auto* next = reinterpret_cast<std::byte*>(uintptr_t{1} << 20);
  for (const int64_t size : sizes) {
    Segment& segment = batch.segments.emplace_back();
    segment.inputs = {next, next + (1 << 16)};
    segment.outputs = {next};
    segment.num_elements = size;
    next += 1 << 18;
  }
  return batch;
}

std::vector<int64_t> Sizes(const Batch& batch) {
  std::vector<int64_t> sizes;
  for (const Segment& segment : batch.segments) sizes.push_back(segment.num_elements);
  return sizes;
}

// The sizes of both halves; empty if there are none.
using TwoSizes = std::pair<std::vector<int64_t>, std::vector<int64_t>>;
TwoSizes HalveSizes(const std::vector<int64_t>& sizes,
                    const Model& model = GetModel(Op::kForward, Dtype::kFp32)) {
  const auto halves = Halve(MakeBatch(sizes, model));
  if (!halves) return {};
  return {Sizes(halves->first), Sizes(halves->second)};
}

constexpr int64_t kAligned = kSlabAlignment / 4;  // elements of FP32

TEST(HalveTest, CutsAtBordersOfSegmentsAndAtAlignedElements) {
  EXPECT_EQ(HalveSizes({4 * kAligned}), (TwoSizes{{2 * kAligned}, {2 * kAligned}}));
  EXPECT_EQ(HalveSizes({3 * kAligned + 1}), (TwoSizes{{kAligned}, {2 * kAligned + 1}}));
  EXPECT_EQ(HalveSizes({5, 5}), (TwoSizes{{5}, {5}}));
  EXPECT_EQ(HalveSizes({5, 4, 3}), (TwoSizes{{5}, {4, 3}}));
  EXPECT_EQ(HalveSizes({2, 10 * kAligned}), (TwoSizes{{2, 4 * kAligned}, {6 * kAligned}}));
  EXPECT_EQ(HalveSizes({10 * kAligned, 2}), (TwoSizes{{5 * kAligned}, {5 * kAligned, 2}}));
  EXPECT_EQ(HalveSizes({7, 1, 1}), (TwoSizes{{7}, {1, 1}}));
  EXPECT_EQ(HalveSizes({0, 5, 0, 5, 0}), (TwoSizes{{5}, {5}}));
}

TEST(HalveTest, CutsNoBatchOfAnMlp) {
  EXPECT_DEATH(HalveSizes({25 * 48}, MlpModels("tiny", 1, 48)[0]), "check failed: IsElementwise");
}

TEST(HalveTest, LeavesTheTensorsOnTheirDevice) {
  Batch batch = MakeBatch({4 * kAligned});
  batch.placement = {.device = 3, .is_resident = true};
  const auto halves = Halve(batch);
  ASSERT_TRUE(halves.has_value());
  EXPECT_EQ(halves->first.placement, batch.placement);
  EXPECT_EQ(halves->second.placement, batch.placement);
}

TEST(HalveTest, LeavesWhatCannotBeCut) {
  for (const std::vector<int64_t>& sizes :
       std::vector<std::vector<int64_t>>{{}, {0}, {1}, {kAligned}, {2 * kAligned - 1}, {0, 3, 0}}) {
    EXPECT_EQ(HalveSizes(sizes), TwoSizes()) << sizes.size() << " segments";
  }
}

TEST(HalveTest, EveryElementIsInOneHalfAtItsPlace) {
  const Batch batch = MakeBatch({3, 10 * kAligned + 7, 20});
  const auto halves = Halve(batch);
  ASSERT_TRUE(halves);
  EXPECT_EQ(halves->first.model->op, Op::kForward);
  EXPECT_EQ(halves->second.model->dtype, Dtype::kFp32);
  ASSERT_EQ(Sizes(halves->first), (std::vector<int64_t>{3, 5 * kAligned}));
  ASSERT_EQ(Sizes(halves->second), (std::vector<int64_t>{5 * kAligned + 7, 20}));
  const Segment& whole = batch.segments[1];
  const Segment& begin = halves->first.segments[1];
  const Segment& rest = halves->second.segments[0];
  const int64_t offset = 5 * kAligned * 4;
  for (int k = 0; k < 2; ++k) {
    EXPECT_EQ(begin.inputs[k], whole.inputs[k]);
    EXPECT_EQ(rest.inputs[k], whole.inputs[k] + offset);
  }
  EXPECT_EQ(begin.outputs[0], whole.outputs[0]);
  EXPECT_EQ(rest.outputs[0], whole.outputs[0] + offset);
  EXPECT_EQ(rest.inputs[2], nullptr);
  EXPECT_EQ(rest.outputs[1], nullptr);
}

class RunInHalvesTest : public testing::Test {
 protected:
  static LaneResult OutOfMemory(Outputs outputs = Outputs::kUntouched) {
    LaneResult result = FaultyResult(DeviceError::kOutOfMemory,
                                     absl::ResourceExhaustedError("device 10 is out of memory"));
    result.fault->outputs = outputs;
    return result;
  }
  static LaneResult Took(std::chrono::nanoseconds compute) {
    LaneResult result;
    result.execution.path = Path::kMapped;
    result.execution.times.compute = compute;
    return result;
  }

  void Run(const Batch& batch) {
    RunInHalves(
        *device_.lanes[0], batch, OutOfMemory(), [this](const DeviceFault&) { ++num_retries_; },
        [this](const LaneResult& result) { results_.push_back(result); });
  }
  // REQUIRES: the job has not ended.
  std::vector<int64_t> SizesOf(size_t job) { return Sizes(*devices_.job(job).batch); }

  FakeDevices devices_;
  LaneDevice device_ = std::move(devices_.Make({1})[0]);
  int num_retries_ = 0;
  std::vector<LaneResult> results_;
};

TEST_F(RunInHalvesTest, RunsOneHalfAfterTheOtherAndAddsUpTheirTimes) {
  Run(MakeBatch({5, 5}));
  ASSERT_EQ(devices_.num_jobs(), 1u);
  EXPECT_EQ(SizesOf(0), std::vector<int64_t>{5});
  devices_.End(0, Took(std::chrono::nanoseconds(3)));
  ASSERT_EQ(devices_.num_jobs(), 2u);
  EXPECT_TRUE(results_.empty());
  devices_.End(1, Took(std::chrono::nanoseconds(4)));
  ASSERT_EQ(results_.size(), 1u);
  EXPECT_TRUE(results_[0].execution.status.ok());
  EXPECT_FALSE(results_[0].fault);
  EXPECT_EQ(results_[0].execution.times.compute.count(), 7);
  EXPECT_EQ(num_retries_, 1);
}

TEST_F(RunInHalvesTest, HalvesAHalfThatDoesNotFitEither) {
  Run(MakeBatch({4 * kAligned, 4 * kAligned}));
  devices_.End(0, OutOfMemory());
  EXPECT_EQ(SizesOf(1), std::vector<int64_t>{2 * kAligned});
  devices_.End(1, Took(std::chrono::nanoseconds(1)));
  EXPECT_EQ(SizesOf(2), std::vector<int64_t>{2 * kAligned});
  devices_.End(2, Took(std::chrono::nanoseconds(1)));
  EXPECT_EQ(SizesOf(3), std::vector<int64_t>{4 * kAligned});
  devices_.End(3, Took(std::chrono::nanoseconds(1)));
  ASSERT_EQ(results_.size(), 1u);
  EXPECT_TRUE(results_[0].execution.status.ok());
  EXPECT_EQ(num_retries_, 2);
}

TEST_F(RunInHalvesTest, GivesUpAtAnEighth) {
  Run(MakeBatch({1024 * kAligned}));
  for (size_t job = 0; job < 3; ++job) {
    ASSERT_EQ(devices_.num_jobs(), job + 1);
    EXPECT_EQ(SizesOf(job), std::vector<int64_t>{(512 >> job) * kAligned});
    devices_.End(job, OutOfMemory());
  }
  EXPECT_EQ(devices_.num_jobs(), 3u);
  ASSERT_EQ(results_.size(), 1u);
  EXPECT_EQ(results_[0].execution.status,
            absl::ResourceExhaustedError("device 10 is out of memory"));
  EXPECT_EQ(num_retries_, 3);
}

TEST_F(RunInHalvesTest, GivesUpAtOnceWhereNothingCanBeCut) {
  Run(MakeBatch({1}));
  EXPECT_EQ(devices_.num_jobs(), 0u);
  ASSERT_EQ(results_.size(), 1u);
  EXPECT_TRUE(absl::IsResourceExhausted(results_[0].execution.status));
  EXPECT_EQ(num_retries_, 0);
}

TEST_F(RunInHalvesTest, AnyOtherErrorEndsIt) {
  Run(MakeBatch({5, 5}));
  devices_.End(0, FaultyResult(DeviceError::kSticky, absl::InternalError("device 10 failed")));
  EXPECT_EQ(devices_.num_jobs(), 1u);
  ASSERT_EQ(results_.size(), 1u);
  EXPECT_EQ(results_[0].execution.status, absl::InternalError("device 10 failed"));
  EXPECT_EQ(results_[0].fault->kind, DeviceError::kSticky);
}

// Inputs may be overwritten by then: a second run would compute on results.
TEST_F(RunInHalvesTest, WhatMayHaveWrittenIsNotTriedAgain) {
  EXPECT_TRUE(IsWorthRetrying(OutOfMemory()));
  EXPECT_FALSE(IsWorthRetrying(OutOfMemory(Outputs::kUnspecified)));
  EXPECT_FALSE(IsWorthRetrying(LaneResult()));
  EXPECT_FALSE(IsWorthRetrying(FaultyResult(DeviceError::kSticky, absl::InternalError("x"))));
}

}  // namespace
}  // namespace swiglu::server
