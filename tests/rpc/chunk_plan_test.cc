// SPDX-License-Identifier: Apache-2.0
//
// How a request is cut into chunks: at the batch's limit, at aligned places, and without a rest.
#include "server/inference/chunk_plan.h"

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "gtest/gtest.h"
#include "tests/batching/mlp_models.h"
#include "tests/byte_units.h"
#include "tests/rpc/requests.h"

namespace swiglu::server {
namespace {

void ExpectPlan(const Model& model, int64_t num_elements, int64_t max_batch_bytes,
                const ChunkPlan& expected) {
  const ChunkPlan plan = PlanChunks(model, num_elements, max_batch_bytes);
  EXPECT_EQ(plan.num_chunks, expected.num_chunks) << num_elements;
  EXPECT_EQ(plan.chunk_elements, expected.chunk_elements) << num_elements;
  EXPECT_EQ(plan.last_elements, expected.last_elements) << num_elements;
}

void ExpectPlan(const char* model_name, int64_t num_elements, int64_t max_batch_bytes,
                const ChunkPlan& expected) {
  ExpectPlan(*FindModel(model_name), num_elements, max_batch_bytes, expected);
}

// Two inputs of two bytes an element.
TEST(ChunkPlanTest, CutsWhatIsOverTheLimit) {
  ExpectPlan(kForwardFp16, 262'143, kMiB, {1, 262'144, 262'143});
  ExpectPlan(kForwardFp16, 262'144, kMiB, {1, 262'144, 262'144});
  ExpectPlan(kForwardFp16, 262'145, kMiB, {2, 262'144, 1});
  ExpectPlan(kForwardFp16, 524'288, kMiB, {2, 262'144, 262'144});
  ExpectPlan(kForwardFp16, 1'000'000'000, kMiB, {3'815, 262'144, 182'784});
}

TEST(ChunkPlanTest, MakesOneEmptyChunkOfNothing) {
  ExpectPlan(kForwardFp16, 0, kMiB, {1, 262'144, 0});
}

TEST(ChunkPlanTest, CountsInputsAndTheirElements) {
  ExpectPlan(kForwardFp32, 131'073, kMiB, {2, 131'072, 1});
  // Three inputs: 174,762 elements would fit, of which whole alignments are taken.
  ExpectPlan(kBackwardBf16, 174'763, kMiB, {2, 174'720, 43});
}

TEST(ChunkPlanTest, CutsAtAlignedPlaces) {
  ExpectPlan(kForwardFp16, 1'000, 1'023, {8, 128, 104});
  ExpectPlan(kForwardFp32, 1'000, 1'023, {16, 64, 40});
}

TEST(ChunkPlanTest, TakesAtLeastOneAlignment) { ExpectPlan(kForwardFp16, 300, 1, {3, 128, 44}); }

TEST(ChunkPlanTest, CutsBetweenRows) {
  const std::vector<Model> models = MlpModels("tiny", 1, 576);
  const Model& forward = models[0];   // one input
  const Model& backward = models[1];  // two inputs
  // 524,288 elements would fit. Two rows are a multiple of the alignment.
  ExpectPlan(forward, 1'000 * 576, kMiB, {2, 910 * 576, 90 * 576});
  ExpectPlan(forward, 910 * 576, kMiB, {1, 910 * 576, 910 * 576});
  ExpectPlan(backward, 1'000 * 576, kMiB, {3, 454 * 576, 92 * 576});
  ExpectPlan(forward, 0, kMiB, {1, 910 * 576, 0});
  ExpectPlan(forward, 576, kMiB, {1, 910 * 576, 576});
}

TEST(ChunkPlanTest, TakesAtLeastOneRow) {
  ExpectPlan(MlpModels("tiny", 1, 14'336)[0], 3 * 14'336, 1'024, {3, 14'336, 14'336});
  // 16 rows of 1,000 elements are a multiple of the alignment, and 15 are not.
  ExpectPlan(MlpModels("tiny", 1, 1'000)[0], 20'000, 1'024, {2, 16'000, 4'000});
}

// --- The places of tensors in a slab

using Inputs = std::array<std::byte*, kMaxTensors>;
using Outputs = std::array<std::byte*, kMaxOutputs>;
using Offsets = std::array<int64_t, kMaxGradients>;

// H = 40 and I = 8: a gradient has 1,280 bytes, which is a multiple of the alignment.
class SlotLayoutTest : public testing::Test {
 protected:
  SlotLayout Plan(const OutputSet& computed, bool takes_readers, const Outputs& outputs = {}) {
    return PlanSlots(model_, computed, takes_readers, Inputs{}, outputs);
  }

  const Model model_ =
      MakeMlpModel({.op = Op::kMlpBackward, .mlp = "m", .hidden = 40, .intermediate = 8});
  std::byte region_{};
};

TEST_F(SlotLayoutTest, GivesGradientsPlacesBehindTheOthers) {
  const SlotLayout layout = Plan(0b1111, true);
  EXPECT_EQ(layout.num_slots, 1);  // dx; the inputs stay in the message
  EXPECT_EQ(layout.gradients, (Offsets{0, 1280, 2560}));
  EXPECT_EQ(layout.gradient_bytes, 3840);
  // Of 3 tokens, dx has 240 bytes.
  EXPECT_EQ(ChunkSlabBytes(model_, layout, 3 * 40), 256u + 3840u);
}

TEST_F(SlotLayoutTest, GivesNoPlaceToWhatIsNotComputed) {
  const SlotLayout layout = Plan(0b0100, true);
  EXPECT_EQ(layout.num_slots, 0);
  EXPECT_EQ(layout.gradients, (Offsets{-1, 0, -1}));
  EXPECT_EQ(ChunkSlabBytes(model_, layout, 3 * 40), 1280u);
  EXPECT_EQ(Plan(0b0100, false).num_slots, 2);  // the inputs
}

TEST_F(SlotLayoutTest, GivesNoPlaceToWhatLiesInARegion) {
  const SlotLayout layout = Plan(0b1011, true, Outputs{&region_, &region_});
  EXPECT_EQ(layout.num_slots, 0);
  EXPECT_EQ(layout.gradients, (Offsets{-1, -1, 0}));
}

TEST_F(SlotLayoutTest, GivesNoPlaceToGradientsThatAreNotNamed) {
  const SlotLayout layout = Plan(0b0001, true);
  EXPECT_EQ(layout.num_slots, 1);
  EXPECT_EQ(layout.gradient_bytes, 0);
  EXPECT_EQ(ChunkSlabBytes(model_, layout, 3 * 40), 256u);
}

TEST_F(SlotLayoutTest, AlignsEachGradient) {
  const Model model =
      MakeMlpModel({.op = Op::kMlpBackward, .mlp = "m", .hidden = 8, .intermediate = 8});
  const SlotLayout layout = PlanSlots(model, 0b1110, true, Inputs{}, Outputs{});
  EXPECT_EQ(layout.gradients, (Offsets{0, 256, 512}));
  const Model odd =
      MakeMlpModel({.op = Op::kMlpBackward, .mlp = "m", .hidden = 8, .intermediate = 24});
  EXPECT_EQ(PlanSlots(odd, 0b1110, true, Inputs{}, Outputs{}).gradients, (Offsets{0, 768, 1536}));
  const Model unaligned =
      MakeMlpModel({.op = Op::kMlpBackward, .mlp = "m", .hidden = 1, .intermediate = 65});
  EXPECT_EQ(PlanSlots(unaligned, 0b1110, true, Inputs{}, Outputs{}).gradients,
            (Offsets{0, 512, 1024}));
}

}  // namespace
}  // namespace swiglu::server
