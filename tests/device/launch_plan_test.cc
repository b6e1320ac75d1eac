// SPDX-License-Identifier: Apache-2.0
//
// Which way a batch takes, and how it is cut into portions.
#include "server/device/launch_plan.h"

#include <gtest/gtest.h>

#include <cstring>
#include <vector>

#include "server/memory/slab_pool.h"
#include "swiglu/cpu.h"
#include "tests/batching/mlp_models.h"
#include "tests/byte_units.h"
#include "tests/device/test_batch.h"

namespace swiglu::server {
namespace {

// Where tensors lie that nobody looks at.
std::byte* const kNowhere = reinterpret_cast<std::byte*>(uintptr_t{1} << 40);

// A batch of that many elements a segment, which nobody runs.
Batch MakeBatch(const Model& model, const std::vector<int64_t>& sizes) {
  Batch batch{&model, {}};
  for (int64_t size : sizes) {
    Segment& segment = batch.segments.emplace_back();
    segment.num_elements = size;
    segment.inputs.fill(kNowhere);
    segment.outputs.fill(kNowhere);
  }
  return batch;
}

Batch MakeBatch(Op op, Dtype dtype, const std::vector<int64_t>& sizes) {
  return MakeBatch(GetModel(op, dtype), sizes);
}

// A forward batch in FP16, 6 bytes an element.
Batch Forward(const std::vector<int64_t>& sizes) {
  return MakeBatch(Op::kForward, Dtype::kFp16, sizes);
}

TEST(BatchBytesTest, CountsInputsAndOutputs) {
  EXPECT_EQ(BatchBytes(Forward({10, 0, 5})), 15 * 3 * 2);
  EXPECT_EQ(BatchBytes(MakeBatch(Op::kBackward, Dtype::kFp32, {10})), 10 * 6 * 4);
  EXPECT_EQ(BatchBytes(Forward({})), 0);
}

TEST(PartTest, MovesWhatHasAPlace) {
  class Reader final : public InputReader {
    void Read(int, std::byte*, size_t) override {}
  } reader;
  Segment segment = Forward({10}).segments[0];
  const Model& model = *FindModel("swiglu_forward_fp16");
  EXPECT_EQ(Part(segment, model, 4, 2).inputs[1], kNowhere + 8);
  EXPECT_EQ(Part(segment, model, 4, 2).outputs[0], kNowhere + 8);
  segment.inputs.fill(nullptr);
  segment.reader = &reader;
  EXPECT_EQ(Part(segment, model, 4, 2).inputs[1], nullptr);
  EXPECT_EQ(Part(segment, model, 4, 2).outputs[0], kNowhere + 8);
}

Path PathOf(const Batch& batch, int64_t other_bytes,
            ResidentWork resident_work = ResidentWork::kNone) {
  return PlanLaunch(batch, {.resident_work = resident_work, .other_bytes = other_bytes}).path;
}

TEST(LaunchPlanTest, TakesFewBlocksOnHostMemory) {
  const LaunchPlan plan = PlanLaunch(Forward({1000}), {});
  EXPECT_EQ(plan.path, Path::kMapped);
  EXPECT_EQ(plan.max_blocks, 32);
  EXPECT_TRUE(plan.portions.empty());
}

TEST(LaunchPlanTest, StagesLargeBatchesBesideLargeOnesOnly) {
  const int64_t least = (4 * kMiB + 5) / 6;  // 4 MiB read and written
  const Batch large = Forward({least}), smaller = Forward({least - 1});
  EXPECT_EQ(PathOf(large, 4 * kMiB), Path::kStaged);
  EXPECT_EQ(PathOf(large, 4 * kMiB - 1), Path::kMapped);
  EXPECT_EQ(PathOf(large, 0), Path::kMapped);
  EXPECT_EQ(PathOf(smaller, 4 * kMiB), Path::kMapped);
}

TEST(LaunchPlanTest, CountsBytesWhateverTheDtype) {
  EXPECT_EQ(PathOf(MakeBatch(Op::kForward, Dtype::kFp32, {kMiB / 2}), 100 * kMiB), Path::kStaged);
  EXPECT_EQ(PathOf(MakeBatch(Op::kForward, Dtype::kFp16, {kMiB / 2}), 100 * kMiB), Path::kMapped);
}

TEST(LaunchPlanTest, StagesBackwardBesideResidentWorkOnly) {
  const Batch backward = MakeBatch(Op::kBackward, Dtype::kFp32, {4 * kMiB});
  EXPECT_EQ(PathOf(backward, 100 * kMiB), Path::kMapped);
  EXPECT_EQ(PathOf(backward, 100 * kMiB, ResidentWork::kRunning), Path::kStaged);
}

TEST(LaunchPlanTest, ItsCallerWaitsForALoneSmallBatch) {
  const auto waits = [](Batch batch, bool is_alone) {
    batch.is_alone = is_alone;
    return PlanLaunch(batch, {}).caller_wait.count() > 0;
  };
  // 256 KiB read and written.
  const int64_t most = (256 << 10) / 6;
  EXPECT_TRUE(waits(Forward({1}), true));
  EXPECT_TRUE(waits(Forward({most}), true));
  EXPECT_FALSE(waits(Forward({most + 1}), true));
  EXPECT_FALSE(waits(Forward({1}), false));
}

TEST(LaunchPlanTest, ItsCallerLaunchesALargeBatchInDeviceMemory) {
  const auto launches = [](int64_t num_elements, Placement placement) {
    Batch batch = Forward({num_elements});
    batch.placement = placement;
    return PlanLaunch(batch, {}).caller_launches;
  };
  const int64_t least = (kMiB + 5) / 6;  // 1 MiB read and written
  EXPECT_TRUE(launches(least, {.device = 0, .is_resident = true}));
  EXPECT_FALSE(launches(least - 1, {.device = 0, .is_resident = true}));
  EXPECT_FALSE(launches(least, {.device = 0, .is_resident = false}));
  EXPECT_FALSE(launches(least, {}));
  Batch alone = Forward({1});
  alone.is_alone = true;
  EXPECT_TRUE(PlanLaunch(alone, {}).caller_launches);
}

TEST(LaunchPlanTest, StagesNoBatchOfManySmallTensors) {
  EXPECT_EQ(PathOf(Forward(std::vector<int64_t>(8, kMiB / 2)), 100 * kMiB), Path::kStaged);
  EXPECT_EQ(PathOf(Forward(std::vector<int64_t>(8, kMiB / 2 - 1)), 100 * kMiB), Path::kMapped);
  // Empty segments have no tensors to copy.
  EXPECT_EQ(PathOf(Forward({2 * kMiB, 0, 0, 0, 0}), 100 * kMiB), Path::kStaged);
}

TEST(LaunchPlanTest, StagesAllButNothingBesideResidentWork) {
  EXPECT_EQ(PathOf(Forward({1}), 0, ResidentWork::kRunning), Path::kStaged);
  EXPECT_EQ(PathOf(Forward(std::vector<int64_t>(256, 7)), 0, ResidentWork::kRunning),
            Path::kStaged);
  EXPECT_EQ(PathOf(Forward({}), 0, ResidentWork::kRunning), Path::kMapped);
  EXPECT_EQ(PathOf(Forward({0, 0}), 0, ResidentWork::kRunning), Path::kMapped);
}

TEST(LaunchPlanTest, LeavesDeviceMemoryWhereItIs) {
  Batch batch = Forward({8 * kMiB});
  batch.placement = {.device = 1, .is_resident = true};
  const LaunchPlan plan =
      PlanLaunch(batch, {.resident_work = ResidentWork::kRunning, .other_bytes = 100 * kMiB});
  EXPECT_EQ(plan.path, Path::kRegion);
  EXPECT_EQ(plan.max_blocks, 0);
  EXPECT_TRUE(plan.portions.empty());
}

TEST(LaunchPlanTest, TakesTheLargestBatchOfTheFormerAsOnePortion) {
  // 16 MiB of inputs, in one segment and in the most, none of them a multiple of the alignment.
  EXPECT_EQ(PlanStaged(Forward({4 * kMiB}), kLaneBufferBytes).portions.size(), 1u);
  const std::vector<int64_t> sizes(swiglu::kMaxSegments, 16 * kMiB / 3 / 2 / 256);
  const Batch backward = MakeBatch(Op::kBackward, Dtype::kBf16, sizes);
  EXPECT_EQ(PlanStaged(backward, kLaneBufferBytes).portions.size(), 1u);
}

// Numbers of elements of the parts, portion by portion.
std::vector<std::vector<int64_t>> PartSizes(const LaunchPlan& plan) {
  std::vector<std::vector<int64_t>> sizes;
  for (const Portion& portion : plan.portions) {
    sizes.emplace_back();
    for (const StagedPart& part : portion) sizes.back().push_back(part.host.num_elements);
  }
  return sizes;
}

TEST(LaunchPlanTest, FillsEachPortionBeforeTheNext) {
  using Sizes = std::vector<std::vector<int64_t>>;
  // Forward in FP16: 256 bytes hold 128 elements, and each part takes two such places and more.
  EXPECT_EQ(PartSizes(PlanStaged(Forward({300}), 512)), (Sizes{{128}, {128}, {44}}));
  EXPECT_EQ(PartSizes(PlanStaged(Forward({100, 0, 300, 5}), 1024)),
            (Sizes{{100, 128}, {172}, {5}}));
  EXPECT_EQ(PartSizes(PlanStaged(Forward({128, 128}), 1024)), (Sizes{{128, 128}}));
}

TEST(LaunchPlanTest, CutsNoBatchOfAnMlp) {
  const Model mlp = MlpModels("tiny", 1, 48)[0];
  EXPECT_DEATH(PlanStaged(MakeBatch(mlp, {480}), 512), "check failed: IsElementwise");
  EXPECT_DEATH(PlanStaged(Forward({8}), 256), "check failed: room_elements");
}

TEST(LaunchPlanTest, GivesEachPartItsOwnPlaceInTheBuffer) {
  const LaunchPlan plan = PlanStaged(Forward({100, 129}), 4096);
  ASSERT_EQ(plan.portions.size(), 1u);
  const Portion& portion = plan.portions[0];
  ASSERT_EQ(portion.size(), 2u);
  EXPECT_EQ(portion[0].place(0), 0u);
  EXPECT_EQ(portion[0].place(1), 256u);
  EXPECT_EQ(portion[1].place(0), 512u);
  EXPECT_EQ(portion[1].place(1), 1024u);
}

// ---- What a staged lane does, with the host's memory as its device buffer ----

void Compute(const Model& model, const std::vector<Segment>& segments) {
  for (const Segment& s : segments) {
    const auto dtype = static_cast<swiglu::Dtype>(model.dtype);
    const swiglu::ForwardSegment forward{s.inputs[0], s.inputs[1], s.outputs[0], s.num_elements};
    const swiglu::BackwardSegment backward{s.inputs[0],  s.inputs[1],  s.inputs[2],   s.outputs[0],
                                           s.outputs[1], s.outputs[2], s.num_elements};
    EXPECT_EQ(model.op == Op::kForward ? swiglu::ForwardCpu(dtype, {&forward, 1})
                                       : swiglu::BackwardCpu(dtype, {&backward, 1}),
              swiglu::KernelStatus::kOk);
  }
}

void RunPortion(const Model& model, const Portion& portion, std::vector<std::byte>& buffer) {
  std::vector<Segment> segments;
  for (const StagedPart& part : portion) {
    const size_t bytes = part.host.num_elements * ElementBytes(model.dtype);
    for (size_t k = 0; k < model.inputs.size(); ++k) {
      ASSERT_LE(part.place(k) + bytes, buffer.size());
      std::memcpy(&buffer[part.place(k)], part.host.inputs[k], bytes);
    }
    segments.push_back(InBuffer(part, model, buffer.data()));
  }
  Compute(model, segments);
  for (const StagedPart& part : portion) {
    const size_t bytes = part.host.num_elements * ElementBytes(model.dtype);
    for (size_t k = 0; k < model.outputs.size(); ++k) {
      std::memcpy(part.host.outputs[k], &buffer[part.place(k)], bytes);
    }
  }
}

TEST(LaunchPlanTest, ItsPortionsTogetherComputeTheBatch) {
  CachingSlabPool pool(MakeHostMemory(), {.capacity_bytes = 64 * kMiB});
  for (const Model& model : Models()) {
    for (const OutputPlace placement : {OutputPlace::kOutOfPlace, OutputPlace::kInPlace}) {
      for (const size_t buffer_bytes : {size_t{768}, size_t{3000}, size_t{1} << 20}) {
        const TestBatch test(pool, model, {1, 0, 7, 4096, 1333, 2}, placement);
        std::vector<std::byte> buffer(buffer_bytes);
        for (const Portion& portion : PlanStaged(test.batch(), buffer_bytes).portions) {
          RunPortion(model, portion, buffer);
        }
        test.ExpectRightOutputs();
      }
    }
  }
}

TEST(LaunchPlanTest, AnMlpWaitsForItsCallerOnlyAlone) {
  const Model model = MlpModels("tiny", 1, 48)[0];
  Batch batch{&model, {Segment{.num_elements = 48}}};
  LaunchPlan plan = PlanLaunch(batch, {.resident_work = ResidentWork::kRunning});
  EXPECT_EQ(plan.path, Path::kStaged);
  EXPECT_TRUE(plan.portions.empty());
  EXPECT_FALSE(plan.caller_launches);
  EXPECT_EQ(plan.caller_wait.count(), 0);
  batch.placement = {0, true};
  plan = PlanLaunch(batch, {});
  EXPECT_EQ(plan.path, Path::kRegion);
  EXPECT_TRUE(plan.caller_launches);
  EXPECT_EQ(plan.caller_wait.count(), 0);
  batch.is_alone = true;
  EXPECT_GT(PlanLaunch(batch, {}).caller_wait.count(), 0);
  batch.segments.front().num_elements = 48 * 50000;  // 9.6 MB in and out
  EXPECT_EQ(PlanLaunch(batch, {}).caller_wait.count(), 0);
}

TEST(LaunchPlanTest, NobodyWaitsForGradientsOfWeights) {
  const Model model = MlpModels("tiny", 1, 48)[1];
  float gradient = 0;
  Batch batch{&model, {Segment{.num_elements = 48, .gradients = {&gradient}}}};
  batch.placement = {0, true};
  batch.is_alone = true;
  const LaunchPlan plan = PlanLaunch(batch, {});
  EXPECT_EQ(plan.caller_wait.count(), 0);
  EXPECT_FALSE(plan.caller_launches);
}

}  // namespace
}  // namespace swiglu::server
