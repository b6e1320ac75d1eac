// SPDX-License-Identifier: Apache-2.0
//
// The check of whole tensors: it looks at every element, whatever the threads.
#include "client/check/tensor_check.h"

#include <cstring>
#include <vector>

#include "gtest/gtest.h"
#include "swiglu/cpu.h"

namespace swiglu::check {
namespace {

// Several chunks, the last one not full.
constexpr size_t kNumElements = 300'001;

class TensorCheckTest : public ::testing::TestWithParam<int> {
 protected:
  TensorCheckTest() {
    for (size_t k = 0; k < kNumElements; ++k) {
      dw_[k] = 1 + static_cast<float>(k % 7);
      e_[k] = static_cast<float>(k % 1000) / 100 - 5;
      g_[k] = static_cast<float>(k % 13) - 6;
    }
    const BackwardSegment segment{dw_.data(), e_.data(),  g_.data(),   h_.data(),
                                  df_.data(), de_.data(), kNumElements};
    EXPECT_EQ(BackwardCpu(Dtype::kFp32, {&segment, 1}), KernelStatus::kOk);
  }

  static Call::Bytes Bytes(const std::vector<float>& tensor) {
    return {reinterpret_cast<const std::byte*>(tensor.data()), tensor.size() * sizeof(float)};
  }

  Report Check() {
    const Call call{
        Dtype::kFp32, {Bytes(dw_), Bytes(e_), Bytes(g_)}, {Bytes(h_), Bytes(df_), Bytes(de_)}};
    return CheckCall(call, GetParam());
  }

  std::vector<float> dw_ = std::vector<float>(kNumElements);
  std::vector<float> e_ = dw_, g_ = dw_, h_ = dw_, df_ = dw_, de_ = dw_;
};

TEST_P(TensorCheckTest, RightResultsHaveSmallErrors) {
  const Report report = Check();
  EXPECT_FALSE(report.first_wrong.has_value());
  ASSERT_EQ(report.largest_ulp.size(), 3u);
  for (const double ulp : report.largest_ulp) EXPECT_LE(ulp, 9);
}

TEST_P(TensorCheckTest, OneWrongElementIsFoundWhereverItIs) {
  for (std::vector<float>* result : {&h_, &df_, &de_}) {
    for (const size_t index : {size_t{1}, size_t{65'536}, kNumElements - 1}) {
      const float right = (*result)[index];
      (*result)[index] = 1e6f;
      const Report report = Check();
      ASSERT_TRUE(report.first_wrong.has_value()) << index;
      EXPECT_EQ(report.first_wrong->index, static_cast<int64_t>(index));
      EXPECT_EQ(report.first_wrong->found, 1e6);
      EXPECT_NEAR(report.first_wrong->exact, right, 1e-4);
      EXPECT_EQ(report.first_wrong->error_ulp, report.largest_ulp[report.first_wrong->result]);
      (*result)[index] = right;
    }
  }
}

TEST_P(TensorCheckTest, TheFirstOfSeveralWrongElementsIsTold) {
  for (const size_t index : {size_t{299'000}, size_t{150'000}, size_t{70'001}}) de_[index] = 1e6f;
  h_[200'000] = -1e6f;
  const Report report = Check();
  ASSERT_TRUE(report.first_wrong.has_value());
  EXPECT_EQ(report.first_wrong->index, 70'001);
  EXPECT_EQ(report.first_wrong->result, 2u);
}

INSTANTIATE_TEST_SUITE_P(Threads, TensorCheckTest, ::testing::Values(1, 2, 5));

TEST(TensorCheckOfForwardTest, TensorsWithoutElementsAreRight) {
  const Call call{Dtype::kBf16, {{}, {}}, {{}}};
  const Report report = CheckCall(call, 4);
  EXPECT_EQ(report.largest_ulp, std::vector<double>{0});
  EXPECT_FALSE(report.first_wrong.has_value());
}

TEST(TensorCheckOfForwardTest, BytesNeedNoAlignment) {
  const float e = 0, g = 1, h = 0.5f;
  std::byte bytes[3][5];
  std::memcpy(bytes[0] + 1, &e, sizeof(e));
  std::memcpy(bytes[1] + 1, &g, sizeof(g));
  std::memcpy(bytes[2] + 1, &h, sizeof(h));
  const Call call{Dtype::kFp32, {{bytes[0] + 1, 4}, {bytes[1] + 1, 4}}, {{bytes[2] + 1, 4}}};
  const Report report = CheckCall(call, 1);
  ASSERT_TRUE(report.first_wrong.has_value());
  EXPECT_EQ(report.first_wrong->found, 0.5);
  EXPECT_EQ(report.first_wrong->exact, 0);
}

}  // namespace
}  // namespace swiglu::check
