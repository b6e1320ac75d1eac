// SPDX-License-Identifier: Apache-2.0
//
// Several threads give the bits of one.
#include "swiglu/cpu_pool.h"

#include <gtest/gtest.h>

#include <array>
#include <cfenv>
#include <chrono>
#include <cstdint>
#include <cstring>
#include <string>
#include <thread>
#include <vector>

#include "swiglu/cpu.h"
#include "tests/kernels/patterns.h"

namespace swiglu::kernels {
namespace {

enum class Op { kForward, kBackward };
constexpr Op kOps[] = {Op::kForward, Op::kBackward};

// More than a mebibyte of all tensors in any op and dtype.
constexpr int64_t kLarge = 200'003;
constexpr int kThreads = 4;

// Segments of given sizes, one behind the other in six tensors, with random inputs.
class Work {
 public:
  Work(Op op, Dtype dtype, const std::vector<int64_t>& sizes, uint32_t seed = 1)
      : op_(op), dtype_(dtype) {
    size_t num_bytes = 0;
    for (const int64_t size : sizes) num_bytes += static_cast<size_t>(size) * ElementBytes(dtype);
    for (std::vector<std::byte>& tensor : tensors_) tensor.resize(num_bytes, kUnwritten);
    for (size_t i = 0; i < 3; ++i) Fill(tensors_[i], seed + static_cast<uint32_t>(i));
    size_t first = 0;
    for (const int64_t size : sizes) {
      AddSegment(first, size);
      first += static_cast<size_t>(size) * ElementBytes(dtype);
    }
  }

  KernelStatus RunOn(CpuPool& pool) const {
    return op_ == Op::kForward ? pool.Forward(dtype_, forward_) : pool.Backward(dtype_, backward_);
  }
  KernelStatus RunAlone() const {
    return op_ == Op::kForward ? ForwardCpu(dtype_, forward_) : BackwardCpu(dtype_, backward_);
  }

  // The bytes of the three output tensors.
  std::vector<std::vector<std::byte>> Outputs() const {
    return {tensors_.begin() + 3, tensors_.end()};
  }
  bool IsUnwritten() const {
    for (const std::vector<std::byte>& output : Outputs()) {
      if (output != std::vector<std::byte>(output.size(), kUnwritten)) return false;
    }
    return true;
  }

  std::vector<ForwardSegment>& forward() { return forward_; }
  std::vector<BackwardSegment>& backward() { return backward_; }

 private:
  static constexpr std::byte kUnwritten{0x55};

  void Fill(std::vector<std::byte>& tensor, uint32_t seed) const {
    const size_t size = ElementBytes(dtype_);
    const Patterns patterns = RandomPatterns(dtype_, tensor.size() / size, seed);
    for (size_t i = 0; i < patterns.size(); ++i) {
      std::memcpy(&tensor[i * size], &patterns[i], size);  // little-endian
    }
  }

  void AddSegment(size_t first, int64_t size) {
    std::byte* at[6];
    for (size_t i = 0; i < 6; ++i) at[i] = tensors_[i].data() + first;
    forward_.push_back({at[1], at[2], at[3], size});
    backward_.push_back({at[0], at[1], at[2], at[3], at[4], at[5], size});
  }

  const Op op_;
  const Dtype dtype_;
  std::array<std::vector<std::byte>, 6> tensors_;  // dw, e, g, h, df, de
  std::vector<ForwardSegment> forward_;
  std::vector<BackwardSegment> backward_;
};

std::string Describe(Op op, Dtype dtype) {
  return std::string(op == Op::kForward ? "forward " : "backward ") + Name(dtype);
}

void ExpectTheBitsOfOneThread(CpuPool& pool, const std::vector<int64_t>& sizes) {
  for (const Op op : kOps) {
    for (const Dtype dtype : kDtypes) {
      const Work shared(op, dtype, sizes), alone(op, dtype, sizes);
      ASSERT_EQ(shared.RunOn(pool), KernelStatus::kOk);
      ASSERT_EQ(alone.RunAlone(), KernelStatus::kOk);
      // Not EXPECT_EQ, which would print megabytes.
      EXPECT_TRUE(shared.Outputs() == alone.Outputs()) << Describe(op, dtype);
    }
  }
}

TEST(CpuPoolTest, GivesTheBitsOfOneThread) {
  CpuPool pool(kThreads);
  ExpectTheBitsOfOneThread(pool, {kLarge});
}

TEST(CpuPoolTest, GivesTheBitsOfOneThreadForManySegments) {
  CpuPool pool(kThreads);
  // Some empty, some of a few elements, some of several pieces.
  std::vector<int64_t> sizes;
  for (int64_t i = 0; i < 400; ++i) sizes.push_back(i % 97 == 5 ? 50'000 + i : i % 13 * i);
  ExpectTheBitsOfOneThread(pool, sizes);
}

TEST(CpuPoolTest, GivesTheBitsOfOneThreadWithOneThreadAndWithMoreThanPieces) {
  for (const int num_threads : {1, 2, 40}) {
    CpuPool pool(num_threads);
    ExpectTheBitsOfOneThread(pool, {kLarge, 1});
  }
}

TEST(CpuPoolTest, ComputesInPlace) {
  CpuPool pool(kThreads);
  for (const Dtype dtype : kDtypes) {
    Work shared(Op::kBackward, dtype, {kLarge});
    const Work alone(Op::kBackward, dtype, {kLarge});
    // The outputs of the one are the inputs of the other.
    BackwardSegment segment = shared.backward()[0];
    segment.h = const_cast<void*>(segment.dw);
    segment.df = const_cast<void*>(segment.e);
    segment.de = const_cast<void*>(segment.g);
    ASSERT_EQ(pool.Backward(dtype, {&segment, 1}), KernelStatus::kOk);
    ASSERT_EQ(alone.RunAlone(), KernelStatus::kOk);
    const size_t num_bytes = kLarge * ElementBytes(dtype);
    EXPECT_EQ(std::memcmp(segment.h, alone.Outputs()[0].data(), num_bytes), 0) << Name(dtype);
    EXPECT_EQ(std::memcmp(segment.df, alone.Outputs()[1].data(), num_bytes), 0) << Name(dtype);
    EXPECT_EQ(std::memcmp(segment.de, alone.Outputs()[2].data(), num_bytes), 0) << Name(dtype);
  }
}

TEST(CpuPoolTest, ServesSeveralCallersAtOnce) {
  CpuPool pool(kThreads);
  const auto call = [&pool](uint32_t caller) {
    const Op op = kOps[caller % 2];
    const Dtype dtype = kDtypes[caller % 3];
    const std::vector<int64_t> sizes = {kLarge + caller, 7, kLarge};
    const Work alone(op, dtype, sizes, caller);
    EXPECT_EQ(alone.RunAlone(), KernelStatus::kOk);
    for (int round = 0; round < 10; ++round) {
      const Work shared(op, dtype, sizes, caller);
      EXPECT_EQ(shared.RunOn(pool), KernelStatus::kOk);
      EXPECT_TRUE(shared.Outputs() == alone.Outputs()) << Describe(op, dtype);
    }
  };
  std::vector<std::thread> callers;
  for (uint32_t caller = 0; caller < 6; ++caller) callers.emplace_back(call, caller);
  for (std::thread& caller : callers) caller.join();
}

TEST(CpuPoolTest, RefusesAFaultyCallWithNothingWritten) {
  CpuPool pool(kThreads);
  const std::vector<int64_t> sizes = {kLarge, kLarge, 4};
  for (const Op op : kOps) {
    Work null(op, Dtype::kFp16, sizes);
    null.forward()[2].g = null.backward()[2].de = nullptr;
    EXPECT_EQ(null.RunOn(pool), KernelStatus::kNullPointer);
    EXPECT_TRUE(null.IsUnwritten());

    for (const int64_t size : {int64_t{-1}, INT64_MIN}) {
      Work negative(op, Dtype::kBf16, sizes);
      negative.forward()[2].num_elements = negative.backward()[2].num_elements = size;
      EXPECT_EQ(negative.RunOn(pool), KernelStatus::kNegativeCount);
      EXPECT_TRUE(negative.IsUnwritten());
    }

    Work misaligned(op, Dtype::kFp32, sizes);
    misaligned.forward()[2].h = misaligned.backward()[2].df =
        static_cast<std::byte*>(misaligned.forward()[2].h) + 2;
    EXPECT_EQ(misaligned.RunOn(pool), KernelStatus::kMisaligned);
    EXPECT_TRUE(misaligned.IsUnwritten());
  }
  Work unknown(Op::kForward, Dtype::kFp16, sizes);
  EXPECT_EQ(pool.Forward(static_cast<Dtype>(3), unknown.forward()), KernelStatus::kBadDtype);
  EXPECT_EQ(pool.Backward(static_cast<Dtype>(-1), unknown.backward()), KernelStatus::kBadDtype);
  EXPECT_TRUE(unknown.IsUnwritten());
}

TEST(CpuPoolTest, TakesEmptyCalls) {
  CpuPool pool(kThreads);
  EXPECT_EQ(pool.Forward(Dtype::kFp16, {}), KernelStatus::kOk);
  EXPECT_EQ(pool.Backward(Dtype::kFp32, std::array<BackwardSegment, 3>{}), KernelStatus::kOk);
}

// Whether the pool's threads take part, some time. The rounding mode belongs to a thread: what
// another thread than the caller computes is rounded to nearest.
void ExpectSharesLargeWork(CpuPool& pool) {
  const std::vector<int64_t> sizes = {kLarge};
  ASSERT_EQ(std::fesetround(FE_UPWARD), 0);
  const Work upward(Op::kBackward, Dtype::kFp32, sizes);
  EXPECT_EQ(upward.RunAlone(), KernelStatus::kOk);
  // A helper that the system wakes late finds nothing left to take; some time one is there.
  bool is_shared = false;
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(20);
  while (!is_shared && std::chrono::steady_clock::now() < end) {
    const Work shared(Op::kBackward, Dtype::kFp32, sizes);
    EXPECT_EQ(shared.RunOn(pool), KernelStatus::kOk);
    is_shared = shared.Outputs() != upward.Outputs();
  }
  ASSERT_EQ(std::fesetround(FE_TONEAREST), 0);
  EXPECT_TRUE(is_shared);
}

TEST(CpuPoolTest, SharesLargeWork) {
  CpuPool pool(2);
  ExpectSharesLargeWork(pool);
}

// More pieces than the pool has threads, all in all: what it counts is given back.
TEST(CpuPoolTest, SharesLargeWorkAsOftenAsItComes) {
  CpuPool pool(2);
  const Work work(Op::kForward, Dtype::kFp16, {kLarge});
  for (int round = 0; round < 20; ++round) EXPECT_EQ(work.RunOn(pool), KernelStatus::kOk);
  ExpectSharesLargeWork(pool);
}

// As above: were any of the work done by another thread, it would be rounded to nearest.
TEST(CpuPoolTest, LeavesSmallWorkToTheCaller) {
  CpuPool pool(kThreads);
  const std::vector<int64_t> sizes = {1000, 20'000, 22'000};
  const Work nearest(Op::kBackward, Dtype::kFp32, sizes);
  ASSERT_EQ(nearest.RunAlone(), KernelStatus::kOk);
  ASSERT_EQ(std::fesetround(FE_UPWARD), 0);
  const Work upward(Op::kBackward, Dtype::kFp32, sizes);
  EXPECT_EQ(upward.RunAlone(), KernelStatus::kOk);
  for (int round = 0; round < 20; ++round) {
    const Work shared(Op::kBackward, Dtype::kFp32, sizes);
    EXPECT_EQ(shared.RunOn(pool), KernelStatus::kOk);
    EXPECT_TRUE(shared.Outputs() == upward.Outputs());
  }
  ASSERT_EQ(std::fesetround(FE_TONEAREST), 0);
  EXPECT_FALSE(nearest.Outputs() == upward.Outputs());
}

TEST(CpuPoolTest, StopsWithAndWithoutHavingWorked) {
  for (int round = 0; round < 50; ++round) CpuPool idle(kThreads);
  const Work work(Op::kForward, Dtype::kFp32, {kLarge});
  for (int round = 0; round < 50; ++round) {
    CpuPool pool(kThreads);
    EXPECT_EQ(work.RunOn(pool), KernelStatus::kOk);
  }
}

}  // namespace
}  // namespace swiglu::kernels
