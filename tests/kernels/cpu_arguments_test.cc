// SPDX-License-Identifier: Apache-2.0
//
// What the CPU launchers refuse, with nothing written.
#include <gtest/gtest.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "swiglu/cpu.h"

namespace swiglu::kernels {
namespace {

// Three inputs and three outputs of four FP16 elements; outputs begin as 0x5555.
class CpuArgumentsTest : public testing::Test {
 protected:
  static constexpr uint16_t kUnwritten = 0x5555;

  CpuArgumentsTest() { outputs_.fill(kUnwritten); }

  void* input(int i) { return &inputs_[static_cast<size_t>(i) * 4]; }
  void* output(int i) { return &outputs_[static_cast<size_t>(i) * 4]; }
  ForwardSegment forward() { return {input(0), input(1), output(0), 4}; }
  BackwardSegment backward() {
    return {input(0), input(1), input(2), output(0), output(1), output(2), 4};
  }

  // Of a good segment followed by `segment`.
  KernelStatus ForwardStatus(const ForwardSegment& segment, Dtype dtype = Dtype::kFp16) {
    return ForwardCpu(dtype, std::array{forward(), segment});
  }
  KernelStatus BackwardStatus(const BackwardSegment& segment, Dtype dtype = Dtype::kFp16) {
    return BackwardCpu(dtype, std::array{backward(), segment});
  }

  void ExpectNothingWritten() {
    for (const uint16_t element : outputs_) EXPECT_EQ(element, kUnwritten);
  }

  alignas(16) std::array<uint16_t, 12> inputs_{};
  alignas(16) std::array<uint16_t, 12> outputs_;
};

TEST_F(CpuArgumentsTest, TakesGoodSegments) {
  EXPECT_EQ(ForwardStatus(forward()), KernelStatus::kOk);
  EXPECT_EQ(outputs_[3], 0x0000);
  EXPECT_EQ(outputs_[4], kUnwritten);
  EXPECT_EQ(BackwardStatus(backward()), KernelStatus::kOk);
  EXPECT_EQ(outputs_[11], 0x0000);
}

TEST_F(CpuArgumentsTest, RefusesANullPointer) {
  ForwardSegment no_e = forward(), no_g = forward(), no_h = forward();
  no_e.e = no_g.g = no_h.h = nullptr;
  for (const ForwardSegment& segment : {no_e, no_g, no_h}) {
    EXPECT_EQ(ForwardStatus(segment), KernelStatus::kNullPointer);
  }
  BackwardSegment faulty[6];
  for (BackwardSegment& segment : faulty) segment = backward();
  faulty[0].dw = faulty[1].e = faulty[2].g = nullptr;
  faulty[3].h = faulty[4].df = faulty[5].de = nullptr;
  for (const BackwardSegment& segment : faulty) {
    EXPECT_EQ(BackwardStatus(segment), KernelStatus::kNullPointer);
  }
  ExpectNothingWritten();
}

TEST_F(CpuArgumentsTest, RefusesANegativeCount) {
  ForwardSegment ahead = forward();
  ahead.num_elements = -1;
  EXPECT_EQ(ForwardStatus(ahead), KernelStatus::kNegativeCount);
  BackwardSegment back = backward();
  back.num_elements = INT64_MIN;
  EXPECT_EQ(BackwardStatus(back), KernelStatus::kNegativeCount);
  ExpectNothingWritten();
}

TEST_F(CpuArgumentsTest, RefusesAPointerThatIsNotAlignedToItsElement) {
  ForwardSegment ahead = forward();
  ahead.g = static_cast<const std::byte*>(ahead.g) + 1;
  EXPECT_EQ(ForwardStatus(ahead), KernelStatus::kMisaligned);
  EXPECT_EQ(ForwardStatus(ahead, Dtype::kBf16), KernelStatus::kMisaligned);
  BackwardSegment back = backward();
  back.de = static_cast<std::byte*>(back.de) + 2;
  back.num_elements = 1;
  EXPECT_EQ(BackwardStatus(back, Dtype::kFp32), KernelStatus::kMisaligned);
  ExpectNothingWritten();
}

TEST_F(CpuArgumentsTest, RefusesAnUnknownDtype) {
  EXPECT_EQ(ForwardStatus(forward(), static_cast<Dtype>(3)), KernelStatus::kBadDtype);
  EXPECT_EQ(BackwardStatus(backward(), static_cast<Dtype>(-1)), KernelStatus::kBadDtype);
  EXPECT_EQ(ForwardCpu(static_cast<Dtype>(7), {}), KernelStatus::kBadDtype);
  ExpectNothingWritten();
}

TEST_F(CpuArgumentsTest, LooksAtNoPointerOfAnEmptySegment) {
  EXPECT_EQ(ForwardStatus({nullptr, output(0), nullptr, 0}), KernelStatus::kOk);
  EXPECT_EQ(BackwardStatus({nullptr, nullptr, nullptr, nullptr, nullptr, nullptr, 0}),
            KernelStatus::kOk);
}

TEST_F(CpuArgumentsTest, TakesMoreSegmentsThanALaunch) {
  const std::vector<ForwardSegment> segments(kMaxSegments + 1, forward());
  EXPECT_EQ(ForwardCpu(Dtype::kFp16, segments), KernelStatus::kOk);
}

TEST(KernelStatusTest, HasAPhraseForEveryStatus) {
  EXPECT_STREQ(ToString(KernelStatus::kOk), "ok");
  EXPECT_STREQ(ToString(KernelStatus::kNullPointer), "null pointer in a segment that has elements");
  EXPECT_STREQ(ToString(KernelStatus::kNegativeCount), "negative number of elements");
  EXPECT_STREQ(ToString(KernelStatus::kMisaligned), "pointer not aligned to its element");
  EXPECT_STREQ(ToString(KernelStatus::kBadDtype), "unknown dtype");
}

}  // namespace
}  // namespace swiglu::kernels
