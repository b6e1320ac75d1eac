// SPDX-License-Identifier: Apache-2.0
//
// The formulas of swiglu-bench against the kernels of the CPU, and against results with an error.
#include "client/bench/formula_check.h"

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "client/bench/first_answers.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "swiglu/cpu.h"

namespace swiglu::bench {
namespace {

using ::testing::StartsWith;

// What a CPU answers to a request with `data`.
std::vector<std::byte> AnswerOfCpu(const RequestData& data) {
  const Model& model = data.model();
  const int64_t n = data.num_elements();
  std::vector<std::byte> answer(static_cast<size_t>(data.output_bytes()));
  const auto output = [&](size_t k) { return &answer[k * data.input(0).size()]; };
  if (model.outputs.size() == 1) {
    const ForwardSegment segment{data.input(0).data(), data.input(1).data(), output(0), n};
    EXPECT_EQ(ForwardCpu(model.dtype, {&segment, 1}), KernelStatus::kOk);
  } else {
    const BackwardSegment segment{data.input(0).data(),
                                  data.input(1).data(),
                                  data.input(2).data(),
                                  output(0),
                                  output(1),
                                  output(2),
                                  n};
    EXPECT_EQ(BackwardCpu(model.dtype, {&segment, 1}), KernelStatus::kOk);
  }
  return answer;
}

// Changes an element by more units in the last place than the check allows.
void Break(const Model& model, std::byte* element) {
  uint32_t bits = 0;
  const auto size = static_cast<size_t>(client::ElementBytes(model.dtype));
  std::memcpy(&bits, element, size);
  bits += size == 2 ? 4 : 512;
  std::memcpy(element, &bits, size);
}

class FormulaCheckTest : public ::testing::TestWithParam<Model> {
 protected:
  // Of output k.
  std::byte* Element(size_t k, size_t index) {
    return &answer_[k * data_.input(0).size() +
                    index * static_cast<size_t>(client::ElementBytes(GetParam().dtype))];
  }

  const RequestData data_{&GetParam(), 10'007};
  std::vector<std::byte> answer_ = AnswerOfCpu(data_);
};

TEST_P(FormulaCheckTest, ResultsOfTheCpuAreRight) {
  EXPECT_EQ(CheckByFormula(data_, answer_), absl::OkStatus());
}

TEST_P(FormulaCheckTest, OneWrongElementOfAnyOutputIsFound) {
  for (size_t k = 0; k < GetParam().outputs.size(); ++k) {
    for (const size_t index : {size_t{0}, size_t{4711}, size_t{10'006}}) {
      std::byte* const element = Element(k, index);
      std::byte right[4];
      const auto size = static_cast<size_t>(client::ElementBytes(GetParam().dtype));
      std::memcpy(right, element, size);
      Break(GetParam(), element);
      const absl::Status status = CheckByFormula(data_, answer_);
      EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
      EXPECT_THAT(
          std::string(status.message()),
          StartsWith(absl::StrCat("wrong result: element ", index, " of output '",
                                  GetParam().outputs[k], "' of '", GetParam().name(), "' is ")));
      std::memcpy(element, right, size);
    }
  }
}

TEST_P(FormulaCheckTest, NanIsWrong) {
  std::memset(Element(0, 5), 0xff, static_cast<size_t>(client::ElementBytes(GetParam().dtype)));
  EXPECT_EQ(CheckByFormula(data_, answer_).code(), absl::StatusCode::kDataLoss);
}

INSTANTIATE_TEST_SUITE_P(Models, FormulaCheckTest,
                         ::testing::ValuesIn(AllModels().begin(), AllModels().end()),
                         [](const auto& model) { return model.param.name(); });

// A chunk that was never written, in the middle of 3 million elements.
TEST(FormulaCheckLargeTest, AChunkThatIsMissingIsFound) {
  const RequestData data(FindModel("swiglu_forward_bf16"), 3'000'000);
  std::vector<std::byte> answer = AnswerOfCpu(data);
  EXPECT_EQ(CheckByFormula(data, answer), absl::OkStatus());
  std::memset(&answer[5'000'000], 0, 1000);
  EXPECT_EQ(CheckByFormula(data, answer).code(), absl::StatusCode::kDataLoss);
}

TEST(FirstAnswersTest, TheKeptOnesAreComparedWithTheFormulas) {
  const Model& model = *FindModel("swiglu_forward_fp16");
  std::vector<RequestData> data;
  data.emplace_back(&model, 100);
  data.emplace_back(&model, 200);
  for (const bool is_right : {true, false}) {
    FirstAnswers answers(&model, 2);
    answers.KeepAnswersTo(&data);
    EXPECT_EQ(answers.CheckKept().value(), 0);
    for (size_t k : {0, 1, 1}) {
      std::vector<std::byte> answer = AnswerOfCpu(data[k]);
      if (k == 1 && !is_right) Break(model, answer.data());
      EXPECT_TRUE(
          answers.Compare(k, 0, {reinterpret_cast<const char*>(answer.data()), answer.size()})
              .ok());
    }
    EXPECT_EQ(answers.Result().value(), 1);
    if (is_right) {
      EXPECT_EQ(answers.CheckKept().value(), 2);
    } else {
      EXPECT_EQ(answers.CheckKept().status().code(), absl::StatusCode::kDataLoss);
    }
  }
}

TEST(FirstAnswersTest, NoneAreComparedWithTheFormulasUnlessTheyAreKept) {
  FirstAnswers answers(FindModel("swiglu_forward_fp16"), 1);
  EXPECT_TRUE(answers.Compare(0, 0, "answer").ok());
  EXPECT_EQ(answers.CheckKept().value(), 0);
}

}  // namespace
}  // namespace swiglu::bench
