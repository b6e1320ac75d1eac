// SPDX-License-Identifier: Apache-2.0
//
// A CUDA lane by itself: both ways of a batch give the same bits and the right ones, and an error
// leaves the lane as it was. Needs a device.
#include "server/device/cuda_lane.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <utility>
#include <vector>

#include "absl/synchronization/notification.h"
#include "server/gpu/cuda_probe.h"
#include "server/memory/pinned_memory.h"
#include "server/memory/slab_pool.h"
#include "tests/device/test_batch.h"

namespace swiglu::server {
namespace {

LaneResult RunAndWait(Lane& lane, const Batch& batch, LaunchPlan plan) {
  LaneResult outcome;
  absl::Notification finished;
  lane.Run(batch, std::move(plan), [&](const LaneResult& result) {
    outcome = result;
    finished.Notify();
  });
  finished.WaitForNotification();
  return outcome;
}

LaunchPlan Staged(const Batch& batch) { return PlanStaged(batch, kLaneBufferBytes); }

class CudaLaneTest : public testing::Test {
 protected:
  void SetUp() override {
    const auto devices = FindCudaDevices();
    if (!devices.ok()) GTEST_SKIP() << devices.status().message();
    auto lane = CudaLane::Create(devices->front().ordinal);
    ASSERT_TRUE(lane.ok()) << lane.status();
    lane_ = *std::move(lane);
    pool_ = std::make_unique<CachingSlabPool>(
        MakePinnedMemory(devices->front().ordinal, nullptr),
        CachingSlabPoolOptions{.capacity_bytes = size_t{512} << 20, .poison = uint8_t{0xFF}});
  }

  // Runs the same problem in place, mapped and staged, and compares all of it.
  void ExpectSameBitsOnBothPaths(const Model& model, const std::vector<int64_t>& sizes,
                                 OutputPlace placement) {
    const TestBatch mapped(*pool_, model, sizes, placement);
    const TestBatch staged(*pool_, model, sizes, placement);
    ASSERT_TRUE(RunAndWait(*lane_, mapped.batch(), PlanMapped(32)).execution.status.ok());
    const LaneResult result = RunAndWait(*lane_, staged.batch(), Staged(staged.batch()));
    ASSERT_TRUE(result.execution.status.ok()) << result.execution.status;
    EXPECT_EQ(result.execution.path, Path::kStaged);
    mapped.ExpectRightOutputs();
    staged.ExpectRightOutputs();
    for (size_t s = 0; s < sizes.size(); ++s) {
      for (size_t k = 0; k < model.outputs.size(); ++k) {
        EXPECT_EQ(std::memcmp(mapped.batch().segments[s].outputs[k],
                              staged.batch().segments[s].outputs[k],
                              sizes[s] * ElementBytes(model.dtype)),
                  0)
            << model.name << " segment " << s << " output '" << model.outputs[k] << "'";
      }
    }
  }

  std::unique_ptr<CudaLane> lane_;
  std::unique_ptr<CachingSlabPool> pool_;
};

TEST_F(CudaLaneTest, BothPathsGiveTheSameBitsForEveryModel) {
  std::vector<int64_t> most(swiglu::kMaxSegments);
  for (size_t i = 0; i < most.size(); ++i) most[i] = static_cast<int64_t>(i % 131);
  for (const Model& model : Models()) {
    for (const OutputPlace placement : {OutputPlace::kOutOfPlace, OutputPlace::kInPlace}) {
      ExpectSameBitsOnBothPaths(model, {1}, placement);
      ExpectSameBitsOnBothPaths(model, {100'003}, placement);
      ExpectSameBitsOnBothPaths(model, {1, 0, 7, 4096, 33'333, 2}, placement);
      ExpectSameBitsOnBothPaths(model, most, placement);
    }
  }
}

TEST_F(CudaLaneTest, BothPathsGiveTheSameBitsOverSeveralPortions) {
  for (const Op op : {Op::kForward, Op::kBackward}) {
    const Model& model = GetModel(op, Dtype::kFp32);
    const std::vector<int64_t> sizes = {3, 3'000'001, 2'000'003, 5};
    const TestBatch test(*pool_, model, sizes);
    EXPECT_GT(Staged(test.batch()).portions.size(), 2u);
    ExpectSameBitsOnBothPaths(model, sizes, OutputPlace::kInPlace);
  }
}

// As where the sender's own alignment is kept: elements that no vector is aligned to.
TEST_F(CudaLaneTest, StagesTensorsThatAreAlignedToTheirElementsAlone) {
  const Model& model = GetModel(Op::kForward, Dtype::kFp16);
  const TestBatch whole(*pool_, model, {1001}), part(*pool_, model, {1001});
  Batch shifted = part.batch();
  Segment& segment = shifted.segments[0];
  for (int k = 0; k < 2; ++k) segment.inputs[k] += 2;
  segment.outputs[0] += 2;
  --segment.num_elements;
  ASSERT_TRUE(RunAndWait(*lane_, whole.batch(), PlanMapped(32)).execution.status.ok());
  ASSERT_TRUE(RunAndWait(*lane_, shifted, Staged(shifted)).execution.status.ok());
  EXPECT_EQ(std::memcmp(whole.batch().segments[0].outputs[0] + 2, segment.outputs[0], 2000), 0);
}

TEST_F(CudaLaneTest, TimesThePhasesOfStagedBatches) {
  const TestBatch test(*pool_, GetModel(Op::kForward, Dtype::kFp32), {1'000'000});
  const Execution staged = RunAndWait(*lane_, test.batch(), Staged(test.batch())).execution;
  EXPECT_GT(staged.times.copy_in.count(), 0);
  EXPECT_GT(staged.times.compute.count(), 0);
  EXPECT_GT(staged.times.copy_out.count(), 0);
  const Execution mapped = RunAndWait(*lane_, test.batch(), PlanMapped(32)).execution;
  EXPECT_EQ(mapped.path, Path::kMapped);
  EXPECT_EQ(mapped.times.copy_in.count(), 0);
  EXPECT_GT(mapped.times.compute.count(), 0);
  EXPECT_EQ(mapped.times.copy_out.count(), 0);
}

TEST_F(CudaLaneTest, ReportsABatchThatCannotBeEnqueuedAndServesOn) {
  const Model& model = GetModel(Op::kForward, Dtype::kFp16);
  Batch without_memory{&model, {}};
  without_memory.segments.emplace_back().num_elements = 100;
  for (LaunchPlan plan : {PlanMapped(32), Staged(without_memory)}) {
    const LaneResult result = RunAndWait(*lane_, without_memory, std::move(plan));
    EXPECT_EQ(result.execution.status,
              absl::InternalError("device 0: cudaErrorInvalidValue: invalid argument"));
    ASSERT_TRUE(result.fault.has_value());
    EXPECT_EQ(result.fault->kind, DeviceError::kOther);
    ExpectSameBitsOnBothPaths(model, {1000}, OutputPlace::kOutOfPlace);
  }
}

TEST_F(CudaLaneTest, CountsTheWaitsOfItsCallers) {
  const TestBatch batch(*pool_, Models()[0], {1000});
  EXPECT_EQ(lane_->caller_wait_time().count(), 0);
  LaunchPlan plan = PlanMapped(32);
  plan.caller_launches = true;
  ASSERT_TRUE(RunAndWait(*lane_, batch.batch(), plan).execution.status.ok());
  EXPECT_EQ(lane_->caller_wait_time().count(), 0);
  plan.caller_wait = std::chrono::seconds(1);
  ASSERT_TRUE(RunAndWait(*lane_, batch.batch(), plan).execution.status.ok());
  EXPECT_GT(lane_->caller_wait_time().count(), 0);
}

}  // namespace
}  // namespace swiglu::server
