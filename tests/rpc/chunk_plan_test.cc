// SPDX-License-Identifier: Apache-2.0
//
// How a request is cut into chunks: at the batch's limit, at aligned places, and without a rest.
#include "server/inference/chunk_plan.h"

#include <cstdint>

#include "gtest/gtest.h"
#include "tests/batching/mlp_models.h"
#include "tests/rpc/requests.h"

namespace swiglu::server {
namespace {

constexpr int64_t kMiB = int64_t{1} << 20;

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

}  // namespace
}  // namespace swiglu::server
