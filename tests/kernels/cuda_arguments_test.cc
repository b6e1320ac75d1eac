// SPDX-License-Identifier: Apache-2.0
//
// What the CUDA launchers refuse, and that neither a refusal nor a launch meddles with CUDA's last
// error. Refusals come before anything of CUDA is called, so most need no device.
#include <cuda_runtime_api.h>
#include <gtest/gtest.h>

#include <array>
#include <bit>
#include <cstdint>
#include <vector>

#include "swiglu/cuda.h"
#include "tests/kernels/cuda_runner.h"

namespace swiglu::kernels {
namespace {

void* At(uintptr_t address) { return std::bit_cast<void*>(address); }

ForwardSegment SomeForward() { return {At(0x1000), At(0x2000), At(0x3000), 8}; }
BackwardSegment SomeBackward() {
  return {At(0x1000), At(0x2000), At(0x3000), At(0x4000), At(0x5000), At(0x6000), 8};
}

cudaError_t Launch(const ForwardSegment& segment, Dtype dtype = Dtype::kFp16) {
  return ForwardCuda(dtype, {&segment, 1}, {}, nullptr);
}
cudaError_t Launch(const BackwardSegment& segment, Dtype dtype = Dtype::kFp16) {
  return BackwardCuda(dtype, {&segment, 1}, {}, nullptr);
}

TEST(CudaArgumentsTest, RefusesANullPointer) {
  ForwardSegment no_e = SomeForward(), no_g = SomeForward(), no_h = SomeForward();
  no_e.e = no_g.g = no_h.h = nullptr;
  for (const ForwardSegment& segment : {no_e, no_g, no_h}) {
    EXPECT_EQ(Launch(segment), cudaErrorInvalidValue);
  }
  BackwardSegment faulty[6];
  for (BackwardSegment& segment : faulty) segment = SomeBackward();
  faulty[0].dw = faulty[1].e = faulty[2].g = nullptr;
  faulty[3].h = faulty[4].df = faulty[5].de = nullptr;
  for (const BackwardSegment& segment : faulty) {
    EXPECT_EQ(Launch(segment), cudaErrorInvalidValue);
  }
}

TEST(CudaArgumentsTest, RefusesANegativeCountOrLimit) {
  ForwardSegment negative = SomeForward();
  negative.num_elements = -1;
  EXPECT_EQ(Launch(negative), cudaErrorInvalidValue);
  const ForwardSegment good = SomeForward();
  EXPECT_EQ(ForwardCuda(Dtype::kFp16, {&good, 1}, {-1}, nullptr), cudaErrorInvalidValue);
}

TEST(CudaArgumentsTest, RefusesAPointerThatIsNotAlignedToItsElement) {
  ForwardSegment odd = SomeForward();
  odd.h = At(0x3001);
  EXPECT_EQ(Launch(odd), cudaErrorInvalidValue);
  EXPECT_EQ(Launch(odd, Dtype::kBf16), cudaErrorInvalidValue);
  BackwardSegment even = SomeBackward();
  even.dw = At(0x1002);
  EXPECT_EQ(Launch(even, Dtype::kFp32), cudaErrorInvalidValue);
}

TEST(CudaArgumentsTest, RefusesAnUnknownDtype) {
  EXPECT_EQ(Launch(SomeForward(), static_cast<Dtype>(3)), cudaErrorInvalidValue);
  EXPECT_EQ(Launch(SomeBackward(), static_cast<Dtype>(-1)), cudaErrorInvalidValue);
}

TEST(CudaArgumentsTest, RefusesTooManySegmentsEmptyOnesToo) {
  const std::vector<ForwardSegment> many(kMaxSegments + 1, SomeForward());
  EXPECT_EQ(ForwardCuda(Dtype::kFp16, many, {}, nullptr), cudaErrorInvalidValue);
  const std::vector<BackwardSegment> empty(kMaxSegments + 1, BackwardSegment{});
  EXPECT_EQ(BackwardCuda(Dtype::kFp16, empty, {}, nullptr), cudaErrorInvalidValue);
}

TEST(CudaArgumentsTest, LaunchesNothingWithoutElements) {
  EXPECT_EQ(ForwardCuda(Dtype::kFp16, {}, {}, nullptr), cudaSuccess);
  EXPECT_EQ(Launch(ForwardSegment{nullptr, At(1), nullptr, 0}), cudaSuccess);
  EXPECT_EQ(Launch(BackwardSegment{}), cudaSuccess);
  const std::vector<BackwardSegment> empty(kMaxSegments, BackwardSegment{});
  EXPECT_EQ(BackwardCuda(Dtype::kFp32, empty, {7}, nullptr), cudaSuccess);
}

// Two good inputs of zeros and an output that begins as ones, on a device.
class CudaLastErrorTest : public testing::Test {
 protected:
  void SetUp() override {
    const std::string missing = WhyNoCudaDevice();
    if (!missing.empty()) GTEST_SKIP() << missing;
    d_data_ = AllocateOnDevice(3 * kTensorBytes);
    ASSERT_NE(d_data_, nullptr);
    ASSERT_EQ(cudaMemset(d_data_.get(), 0, 2 * kTensorBytes), cudaSuccess);
    ASSERT_EQ(cudaMemset(d_data_.get() + 2 * kTensorBytes, 0xFF, kTensorBytes), cudaSuccess);
    ASSERT_EQ(cudaGetLastError(), cudaSuccess);
  }

  ForwardSegment good() const {
    return {d_data_.get(), d_data_.get() + kTensorBytes, d_data_.get() + 2 * kTensorBytes, 8};
  }

  // The first byte of h: 0 once computed.
  int FirstByte() const {
    unsigned char byte = 1;
    EXPECT_EQ(cudaMemcpy(&byte, good().h, 1, cudaMemcpyDefault), cudaSuccess);
    return byte;
  }

  static constexpr size_t kTensorBytes = 16;
  std::shared_ptr<std::byte> d_data_;
};

TEST_F(CudaLastErrorTest, ARefusalWritesNothingAndLeavesNoError) {
  ForwardSegment misaligned = good();
  misaligned.e = static_cast<const std::byte*>(misaligned.e) + 1;
  ForwardSegment negative = good();
  negative.num_elements = -5;
  for (const ForwardSegment& bad :
       {misaligned, negative, ForwardSegment{nullptr, nullptr, nullptr, 1}}) {
    EXPECT_NE(ForwardCuda(Dtype::kFp16, std::array{good(), bad}, {}, nullptr), cudaSuccess);
    EXPECT_EQ(cudaDeviceSynchronize(), cudaSuccess);
    EXPECT_EQ(cudaGetLastError(), cudaSuccess);
    EXPECT_EQ(FirstByte(), 0xFF);
  }
  EXPECT_EQ(Launch(good()), cudaSuccess);
  EXPECT_EQ(FirstByte(), 0);
}

TEST_F(CudaLastErrorTest, ALaunchNeitherReportsNorClearsAnEarlierError) {
  ASSERT_EQ(cudaSetDevice(4096), cudaErrorInvalidDevice);
  EXPECT_EQ(Launch(good()), cudaSuccess);
  EXPECT_EQ(cudaGetLastError(), cudaErrorInvalidDevice);
  EXPECT_EQ(FirstByte(), 0);
}

TEST_F(CudaLastErrorTest, ARefusalDoesNotClearAnEarlierError) {
  ASSERT_EQ(cudaSetDevice(4096), cudaErrorInvalidDevice);
  EXPECT_EQ(Launch(ForwardSegment{nullptr, nullptr, nullptr, 1}), cudaErrorInvalidValue);
  EXPECT_EQ(cudaGetLastError(), cudaErrorInvalidDevice);
}

}  // namespace
}  // namespace swiglu::kernels
