// SPDX-License-Identifier: Apache-2.0
//
// More than 2^31 elements in one segment, sampled at both ends and across the border.
#include <cuda_runtime_api.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <string>
#include <vector>

#include "swiglu/cuda.h"
#include "tests/kernels/cuda_runner.h"
#include "tests/kernels/golden.h"
#include "tests/kernels/patterns.h"

namespace swiglu::kernels {
namespace {

constexpr int64_t kBorder = int64_t{1} << 31;
constexpr int64_t kNumElements = kBorder + 70001;
constexpr size_t kWindow = 4096;

// Where samples begin: at the start, around the border, and up to the very end.
constexpr int64_t kSamples[] = {0,
                                kBorder / 2 - 1000,
                                kBorder - 4096 - 1000,
                                kBorder - 1000,
                                kBorder + 4000,
                                kNumElements - int64_t{kWindow}};

class CudaLargeTest : public testing::Test {
 protected:
  void SetUp() override {
    const std::string missing = WhyNoCudaDevice();
    if (!missing.empty()) GTEST_SKIP() << missing;
    d_e_ = AllocateOnDevice(kBytes);
    d_g_ = AllocateOnDevice(kBytes);
    if (d_e_ == nullptr || d_g_ == nullptr) {
      size_t free_bytes = 0, total_bytes = 0;
      cudaMemGetInfo(&free_bytes, &total_bytes);
      GTEST_SKIP() << "needs twice " << kBytes << " bytes of device memory, has " << free_bytes;
    }
  }

  // Forward in place, FP16, with e and g so many elements past the start of their memory.
  void ExpectRightSamples(int64_t e_offset, int64_t g_offset) {
    // Between the samples lies 0x3c3c, and h is never so.
    ASSERT_EQ(cudaMemset(d_e_.get(), 0x3c, kBytes), cudaSuccess);
    ASSERT_EQ(cudaMemset(d_g_.get(), 0x3c, kBytes), cudaSuccess);
    uint16_t* const d_e = reinterpret_cast<uint16_t*>(d_e_.get()) + e_offset;
    uint16_t* const d_g = reinterpret_cast<uint16_t*>(d_g_.get()) + g_offset;
    uint32_t seed = 60;
    for (const int64_t first : kSamples) {
      Put(RandomPatterns(Dtype::kFp16, kWindow, seed++), d_e + first);
      Put(RandomPatterns(Dtype::kFp16, kWindow, seed++), d_g + first);
    }

    const ForwardSegment segment{d_e, d_g, d_e, kNumElements};
    ASSERT_EQ(ForwardCuda(Dtype::kFp16, {&segment, 1}, {}, nullptr), cudaSuccess);
    ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);

    const Patterns f = ReadGoldenForward(Dtype::kFp16);
    seed = 60;
    for (const int64_t first : kSamples) {
      const Patterns e = RandomPatterns(Dtype::kFp16, kWindow, seed++);
      const Patterns g = RandomPatterns(Dtype::kFp16, kWindow, seed++);
      Patterns h;
      for (size_t i = 0; i < kWindow; ++i) h.push_back(Product(Dtype::kFp16, f[e[i]], g[i]));
      EXPECT_TRUE(SameTensor(Dtype::kFp16, Get(d_e + first, kWindow), h)) << "from " << first;
    }
    const uint32_t between = Product(Dtype::kFp16, f[0x3c3c], 0x3c3c);
    EXPECT_EQ(Get(d_e + kBorder / 4, 1)[0], between);
    EXPECT_EQ(Get(d_e + kNumElements, 1)[0], 0x3c3cu) << "written past the end";
  }

 private:
  static constexpr size_t kBytes = (static_cast<size_t>(kNumElements) + 16) * 2;

  static void Put(const Patterns& patterns, uint16_t* d_to) {
    const std::vector<uint16_t> elements(patterns.begin(), patterns.end());
    ASSERT_EQ(cudaMemcpy(d_to, elements.data(), 2 * elements.size(), cudaMemcpyDefault),
              cudaSuccess);
  }
  static Patterns Get(const uint16_t* d_from, size_t num_elements) {
    std::vector<uint16_t> elements(num_elements);
    EXPECT_EQ(cudaMemcpy(elements.data(), d_from, 2 * num_elements, cudaMemcpyDefault),
              cudaSuccess);
    return Patterns(elements.begin(), elements.end());
  }

  std::shared_ptr<std::byte> d_e_, d_g_;
};

TEST_F(CudaLargeTest, ForwardCrossesTheBorderOf32Bits) { ExpectRightSamples(0, 0); }

TEST_F(CudaLargeTest, ForwardCrossesTheBorderFromACommonOddPlace) { ExpectRightSamples(3, 3); }

TEST_F(CudaLargeTest, ForwardCrossesTheBorderWhereAlignmentsDiffer) { ExpectRightSamples(1, 2); }

}  // namespace
}  // namespace swiglu::kernels
