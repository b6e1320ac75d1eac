// SPDX-License-Identifier: Apache-2.0
//
// The table of models is the public interface: names, tensors, order.
#include "server/core/model.h"

#include <gtest/gtest.h>

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

TEST(BytesReadAndWrittenTest, CountsInputsAndOutputs) {
  EXPECT_EQ(BytesReadAndWritten(GetModel(Op::kForward, Dtype::kFp16), 10), 3 * 20);
  EXPECT_EQ(BytesReadAndWritten(GetModel(Op::kBackward, Dtype::kFp32), 10), 6 * 40);
}

}  // namespace
}  // namespace swiglu::server
