// SPDX-License-Identifier: Apache-2.0
//
// What a lane is asked before it serves, and what it is refused for.
#include "server/device/warm_up.h"

#include <gtest/gtest.h>

#include <cstring>
#include <functional>
#include <map>
#include <set>
#include <utility>

#include "server/memory/slab_pool.h"

namespace swiglu::server {
namespace {

// Ends every batch inside `Run`, after `compute` has had it.
class InlineLane final : public Lane {
 public:
  using Compute = std::function<LaneResult(const Batch&, const LaunchPlan&)>;

  explicit InlineLane(Compute compute) : compute_(std::move(compute)) {}

  void Run(const Batch& batch, LaunchPlan plan, Finished finished) override {
    finished(compute_(batch, plan));
  }

 private:
  const Compute compute_;
};

// Right for inputs of zeros, which it looks at.
LaneResult Copy(const Batch& batch) {
  for (const Segment& segment : batch.segments) {
    for (int k = 0; k < kMaxTensors; ++k) {
      if (segment.outputs[k] == nullptr) continue;
      std::memcpy(segment.outputs[k], segment.inputs[k],
                  segment.num_elements * ElementBytes(batch.model->dtype));
    }
  }
  return {};
}

class WarmUpTest : public testing::Test {
 protected:
  absl::Status Try(InlineLane::Compute compute, LaneUse use = LaneUse::kAny) {
    InlineLane lane(std::move(compute));
    return WarmUp(lane, 3, pool_, use);
  }

  CachingSlabPool pool_{MakeHostMemory(), {.capacity_bytes = size_t{8} << 20, .poison = 0xFF}};
};

TEST_F(WarmUpTest, RunsEveryModelOnBothPaths) {
  std::map<Path, std::set<absl::string_view>> models;
  std::set<size_t> num_segments;
  EXPECT_EQ(Try([&](const Batch& batch, const LaunchPlan& plan) {
              models[plan.path].insert(batch.model->name);
              num_segments.insert(batch.segments.size());
              return Copy(batch);
            }),
            absl::OkStatus());
  EXPECT_EQ(models.size(), 2u);
  EXPECT_EQ(models[Path::kMapped].size(), Models().size());
  EXPECT_EQ(models[Path::kStaged].size(), Models().size());
  EXPECT_EQ(num_segments, (std::set<size_t>{1, 2, 32, 256}));
  EXPECT_EQ(pool_.used_bytes(), 0u);
}

TEST_F(WarmUpTest, StagesNothingOnALaneForResidentBatches) {
  std::set<Path> paths;
  const auto compute = [&](const Batch& batch, const LaunchPlan& plan) {
    paths.insert(plan.path);
    return Copy(batch);
  };
  EXPECT_EQ(Try(compute, LaneUse::kResident), absl::OkStatus());
  EXPECT_EQ(paths, (std::set<Path>{Path::kMapped}));
}

TEST_F(WarmUpTest, RefusesALaneThatWritesNothing) {
  EXPECT_EQ(Try([](const Batch&, const LaunchPlan&) { return LaneResult(); }),
            absl::InternalError("device 3 computes wrong results for swiglu_forward_fp16"));
}

TEST_F(WarmUpTest, RefusesALaneThatLeavesOutTheLastElement) {
  EXPECT_EQ(Try([](const Batch& batch, const LaunchPlan& plan) {
              Batch shorter = batch;
              if (plan.path == Path::kStaged) --shorter.segments.back().num_elements;
              return Copy(shorter);
            }),
            absl::InternalError("device 3 computes wrong results for swiglu_forward_fp16"));
}

TEST_F(WarmUpTest, PassesOnWhatALaneFailsWith) {
  EXPECT_EQ(Try([](const Batch& batch, const LaunchPlan&) {
              LaneResult result = Copy(batch);
              if (batch.model->op == Op::kBackward) {
                result.execution.status = absl::InternalError("device 3 failed");
              }
              return result;
            }),
            absl::InternalError("device 3 failed"));
}

TEST_F(WarmUpTest, FailsWithoutMemory) {
  CachingSlabPool small(MakeHostMemory(), {.capacity_bytes = 4096});
  InlineLane lane([](const Batch& batch, const LaunchPlan&) { return Copy(batch); });
  EXPECT_EQ(WarmUp(lane, 3, small).code(), absl::StatusCode::kResourceExhausted);
}

}  // namespace
}  // namespace swiglu::server
