// SPDX-License-Identifier: Apache-2.0
//
// What the sentences of refusals do with long and odd text from callers. The sentences themselves
// are checked where they arise.
#include "server/codec/errors.h"

#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "server/codec/region_errors.h"
#include "server/core/retry.h"
#include "tests/batching/mlp_models.h"
#include "tests/rpc/requests.h"

namespace swiglu::server {
namespace {

TEST(ErrorsTest, KeepsNamesOfUpTo128Bytes) {
  const std::string name(128, 'x');
  EXPECT_EQ(errors::UnknownMethod(name).message(), "unknown method '" + name + "'");
}

TEST(ErrorsTest, CutsLongerNames) {
  EXPECT_EQ(errors::UnknownMethod(std::string(129, 'x')).message(),
            "unknown method '" + std::string(128, 'x') + "...'");
  EXPECT_LT(errors::UnknownMethod(std::string(1 << 20, 'x')).message().size(), 200u);
}

TEST(ErrorsTest, CutsBetweenCharacters) {
  // 127 bytes, then a character of two, three and four bytes over the limit.
  for (const std::string character : {"\xc3\xa9", "\xe2\x82\xac", "\xf0\x9f\x98\x80"}) {
    const std::string name = std::string(127, 'x') + character + "yyyy";
    EXPECT_EQ(errors::UnknownMethod(name).message(),
              "unknown method '" + std::string(127, 'x') + "...'");
  }
  // A character that ends exactly at the limit stays.
  EXPECT_EQ(errors::UnknownMethod(std::string(126, 'x') + "\xc3\xa9" + "yy").message(),
            "unknown method '" + std::string(126, 'x') + "\xc3\xa9...'");
}

TEST(ErrorsTest, CutsTextWithoutAnyBorder) {
  const absl::Status status = errors::UnknownMethod(std::string(1000, '\x80'));
  EXPECT_LT(status.message().size(), 200u);
}

TEST(ErrorsTest, CutsEveryKindOfTextFromACaller) {
  const std::string text(1 << 16, 'x');
  const Model& model = GetModel(Op::kForward, Dtype::kFp16);
  const std::vector<int64_t> shape(1 << 16, -1);
  const absl::Status statuses[] = {errors::UnknownModel(text, ModelRegistry()),
                                   errors::WrongVersion(model, text),
                                   errors::VersionNotInteger(text),
                                   errors::UnsupportedParameter(text),
                                   errors::UnknownInput(text, model),
                                   errors::UnknownOutput(text, model),
                                   errors::WrongDatatype("e", text, model),
                                   errors::NegativeDimension("e", shape),
                                   errors::ShapeTooLarge("e", shape),
                                   errors::ShapesDiffer("g", shape, "e", shape),
                                   errors::WrongSize("e", 1, shape, Dtype::kFp16, 2),
                                   errors::NoData("e", shape, Dtype::kFp16, 2),
                                   errors::SharedMemoryOff("e", text),
                                   errors::UnknownMethod(text),
                                   errors::UnknownHealthService(text)};
  for (const absl::Status& status : statuses) {
    EXPECT_LT(status.message().size(), 512u) << status;
    EXPECT_FALSE(status.ok());
  }
}

TEST(ErrorsTest, ShowsEveryKindOfTextFromACallerAsItIs) {
  // It turns the direction of what follows, and is no UTF-8 at its end.
  const std::string text = "x\xE2\x80\xAEy\n\xFF";
  const std::string shown = "x\\u202ey\\n\xEF\xBF\xBD";
  const Model& model = GetModel(Op::kForward, Dtype::kFp16);
  for (const absl::Status& status :
       {errors::UnknownModel(text, ModelRegistry()), errors::WrongVersion(model, text),
        errors::VersionNotInteger(text), errors::UnsupportedParameter(text),
        errors::UnknownInput(text, model), errors::UnknownOutput(text, model),
        errors::WrongDatatype("e", text, model), errors::SharedMemoryOff(text, text),
        errors::UnknownMethod(text), errors::UnknownHealthService(text)}) {
    EXPECT_NE(status.message().find(shown), std::string::npos) << status;
    EXPECT_EQ(status.message().find("\xE2\x80\xAE"), std::string::npos) << status;
  }
}

TEST(ErrorsTest, ListsAtMostTwelveModels) {
  const std::string known = kKnownModels;
  EXPECT_EQ(errors::UnknownModel("nope", ModelRegistry()).message(),
            "unknown model 'nope'" + known);
  const std::string first_twelve =
      "unknown model 'nope'" + known +
      ", mlp_a_0_forward, mlp_a_0_backward, mlp_a_1_forward, mlp_a_1_backward, mlp_a_2_forward, "
      "mlp_a_2_backward";
  const ModelRegistry twelve(MlpModels("a", 3, 576)), more(MlpModels("a", 80, 576));
  EXPECT_EQ(errors::UnknownModel("nope", twelve).message(), first_twelve);
  EXPECT_EQ(errors::UnknownModel("nope", more).message(), first_twelve + " and 154 more");
}

TEST(ErrorsTest, FormatsShapes) {
  EXPECT_EQ(errors::FormatShape({}), "[]");
  EXPECT_EQ(errors::FormatShape({3, -4}), "[3,-4]");
  EXPECT_EQ(errors::FormatShape(std::vector<int64_t>(16, 1)), "[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1]");
  EXPECT_EQ(errors::FormatShape(std::vector<int64_t>(17, 1)),
            "[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,... (17 dims)]");
}

TEST(ErrorsTest, AsksToComeBackOnlyWhereThatHelps) {
  EXPECT_TRUE(errors::IsRetryable(errors::QueueFull(1)));
  EXPECT_TRUE(errors::IsRetryable(errors::BudgetInUse(1)));
  EXPECT_TRUE(errors::IsRetryable(errors::Draining()));
  EXPECT_FALSE(errors::IsRetryable(errors::RequestTooLarge(2, 1)));
  EXPECT_FALSE(errors::IsRetryable(errors::ExceedsBudget(2, 1)));
  EXPECT_FALSE(errors::IsRetryable(absl::InternalError("device 0 failed")));
  EXPECT_FALSE(errors::IsRetryable(absl::OkStatus()));
}

}  // namespace
}  // namespace swiglu::server
