// SPDX-License-Identifier: Apache-2.0
//
// The table of models is the public interface: names, tensors, order.
#include "server/core/model.h"

#include <gtest/gtest.h>

#include <array>
#include <vector>

#include "tests/batching/mlp_models.h"

namespace swiglu::server {
namespace {

TEST(ModelTest, TableHoldsTheSixPublicNamesInOrder) {
  const absl::string_view expected[] = {"swiglu_forward_fp16",  "swiglu_forward_bf16",
                                        "swiglu_forward_fp32",  "swiglu_backward_fp16",
                                        "swiglu_backward_bf16", "swiglu_backward_fp32"};
  ASSERT_EQ(Models().size(), 6u);
  for (int i = 0; i < 6; ++i) {
    EXPECT_EQ(Models()[i].name, expected[i]);
    EXPECT_EQ(Models()[i].index, i);
    EXPECT_EQ(FindModel(expected[i]), &Models()[i]);
    EXPECT_EQ(&GetModel(Models()[i].op, Models()[i].dtype), &Models()[i]);
  }
}

TEST(ModelTest, FindModelGivesNullForAnyOtherName) {
  EXPECT_EQ(FindModel(""), nullptr);
  EXPECT_EQ(FindModel("swiglu_forward"), nullptr);
  EXPECT_EQ(FindModel("swiglu_forward_fp16 "), nullptr);
}

TEST(ModelTest, TensorsAreInTheOrderOfTheInPlaceContract) {
  const Model& forward = *FindModel("swiglu_forward_bf16");
  EXPECT_EQ(forward.inputs, (std::vector<absl::string_view>{"e", "g"}));
  EXPECT_EQ(forward.outputs, (std::vector<absl::string_view>{"h"}));
  const Model& backward = *FindModel("swiglu_backward_fp32");
  EXPECT_EQ(backward.inputs, (std::vector<absl::string_view>{"DW", "e", "g"}));
  EXPECT_EQ(backward.outputs, (std::vector<absl::string_view>{"h", "df", "de"}));
}

TEST(ModelTest, TheSixShowAnyShapeAndHaveASeriesEach) {
  for (const Model& model : Models()) {
    EXPECT_EQ(model.series, model.name);
    EXPECT_EQ(model.platform, "swiglu");
    EXPECT_EQ(model.shown_shape, std::vector<int64_t>(model.op == Op::kForward ? 3 : 2, -1));
    EXPECT_FALSE(model.has_rows());
    EXPECT_TRUE(model.properties.empty());
    EXPECT_TRUE(model.gradients.empty());
  }
}

TEST(ModelTest, EveryOperationHasItsLabel) {
  EXPECT_EQ(OpLabel(Op::kForward), "forward");
  EXPECT_EQ(OpLabel(Op::kBackward), "backward");
  EXPECT_EQ(OpLabel(Op::kMlpForward), "mlp_forward");
  EXPECT_EQ(OpLabel(Op::kMlpBackward), "mlp_backward");
}

// As requests and answers name them, behind the outputs that every request gets.
TEST(ModelTest, BackwardOfAnMlpHasTheGradientsOfItsWeights) {
  const std::vector<Model> models = MlpModels("tiny", 1, 576);
  EXPECT_EQ(models[0].num_outputs(), 1);
  const Model& backward = models[1];
  ASSERT_EQ(backward.num_outputs(), 4);
  const absl::string_view names[] = {"dx", "d_gate_proj", "d_up_proj", "d_down_proj"};
  for (int k = 0; k < 4; ++k) EXPECT_EQ(backward.OutputName(k), names[k]);
  EXPECT_EQ(backward.FindGradient(0), nullptr);
  using Shape = std::array<int64_t, 2>;
  EXPECT_EQ(backward.FindGradient(1)->shape, (Shape{1536, 576}));
  EXPECT_EQ(backward.FindGradient(2)->shape, (Shape{1536, 576}));
  EXPECT_EQ(backward.FindGradient(3)->shape, (Shape{576, 1536}));
  EXPECT_EQ(backward.FindGradient(3)->size_bytes(), 1536 * 576 * 4);
  EXPECT_EQ(backward.GradientNumber(2), 3);
}

TEST(ModelTest, NoneOfTheSixIsOfAnMlp) {
  EXPECT_DEATH(GetModel(Op::kMlpForward, Dtype::kFp16), "check failed: IsElementwise");
}

TEST(BytesReadAndWrittenTest, CountsInputsAndOutputs) {
  EXPECT_EQ(BytesReadAndWritten(GetModel(Op::kForward, Dtype::kFp16), 10), 3 * 20);
  EXPECT_EQ(BytesReadAndWritten(GetModel(Op::kBackward, Dtype::kFp32), 10), 6 * 40);
}

TEST(CutElementsTest, AreAlignedAndHaveWholeRows) {
  EXPECT_EQ(CutElements(GetModel(Op::kForward, Dtype::kFp16)), 128);
  EXPECT_EQ(CutElements(GetModel(Op::kBackward, Dtype::kFp32)), 64);
  // In BF16 each 128th element is aligned.
  EXPECT_EQ(CutElements(MlpModels("tiny", 1, 256)[0]), 256);
  EXPECT_EQ(CutElements(MlpModels("tiny", 1, 576)[0]), 1'152);
  EXPECT_EQ(CutElements(MlpModels("tiny", 1, 14'336)[0]), 14'336);
  EXPECT_EQ(CutElements(MlpModels("tiny", 1, 5)[0]), 640);
}

}  // namespace
}  // namespace swiglu::server
