// SPDX-License-Identifier: Apache-2.0
//
// The MLP on the CPU against sums that are computed one by one: the bits, whatever the number of
// tokens, the threads and the instruction set; special values; accuracy; refused calls. For the
// gradients of the weights, see cpu_mlp_gradients_test.cc.
#include "swiglu/cpu_mlp.h"

#include <gtest/gtest.h>

#include <array>
#include <cfenv>
#include <chrono>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <thread>
#include <vector>

#include "kernels/cpu/mlp_product.h"
#include "swiglu/cpu.h"
#include "swiglu/cpu_pool.h"
#include "tests/kernels/cpu_mlp_problem.h"
#include "tests/kernels/cpu_runner.h"
#include "tests/kernels/patterns.h"

namespace swiglu::kernels {
namespace {

struct Expected {
  Lanes y, dx;
};

Expected Compute(const Mlp& mlp) {
  const int64_t h_size = mlp.sizes.hidden, i_size = mlp.sizes.intermediate;
  const Dtype dtype = mlp.dtype;
  const auto [h, df, de] = Activate(mlp);
  Expected expected{Multiply(dtype, h, {mlp.down, true}, i_size, h_size), {}};
  const Lanes of_df = Multiply(dtype, df, {mlp.up, false}, i_size, h_size);
  const Lanes of_de = Multiply(dtype, de, {mlp.gate, false}, i_size, h_size);
  for (size_t i = 0; i < of_df.size(); ++i) {
    expected.dx.push_back(Rounded(dtype, Widened(dtype, of_df[i]) + Widened(dtype, of_de[i])));
  }
  return expected;
}

void ExpectTheBitsOfTheSums(const Mlp& mlp, CpuPool& pool) {
  const Expected expected = Compute(mlp);
  const auto weights = Pack(mlp);
  EXPECT_TRUE(
      SameTensor(mlp.dtype, AsPatterns(Forward(mlp, *weights, pool)), AsPatterns(expected.y)))
      << Describe(mlp) << " forward";
  EXPECT_TRUE(
      SameTensor(mlp.dtype, AsPatterns(Backward(mlp, *weights, pool)), AsPatterns(expected.dx)))
      << Describe(mlp) << " backward";
}

// Runs on one instruction set.
class CpuMlpTest : public KernelTest {
 protected:
  CpuPool pool_{1};
};

INSTANTIATE_TEST_SUITE_P(Cpu, CpuMlpTest, testing::ValuesIn(EveryCpuTarget()), NameOfChoice);

TEST_P(CpuMlpTest, HasTheBitsOfTheSumsAtTheEdgesOfPanels) {
  for (const Dtype dtype : kNarrowDtypes) {
    for (const int64_t hidden : {8, 16, 24, 32, 40, 64, 72}) {
      for (const int64_t intermediate : {8, 16, 24, 32, 40, 64, 104}) {
        ExpectTheBitsOfTheSums(Mlp(dtype, {hidden, intermediate}, 3), pool_);
      }
    }
  }
}

TEST_P(CpuMlpTest, HasTheBitsOfTheSumsForAnyNumberOfTokens) {
  for (const Dtype dtype : kNarrowDtypes) {
    for (int64_t num_tokens = 1; num_tokens <= 40; ++num_tokens) {
      ExpectTheBitsOfTheSums(Mlp(dtype, {40, 72}, num_tokens), pool_);
    }
    for (const int64_t num_tokens : {47, 48, 49, 96, 97, 113}) {
      ExpectTheBitsOfTheSums(Mlp(dtype, {40, 24}, num_tokens), pool_);
    }
  }
}

// Infinities, NaNs, subnormals and the greatest numbers, in weights and inputs. BF16 products leave
// the range of float32 at both ends.
TEST_P(CpuMlpTest, HasTheBitsOfTheSumsForSpecialValues) {
  for (const Dtype dtype : kNarrowDtypes) {
    for (const uint32_t every : {2u, 20u, 200u, 5000u}) {
      for (uint32_t seed = 0; seed < 4; ++seed) {
        Mlp mlp(dtype, {40, 72}, 9);
        mlp.gate = LanesWithSpecials(dtype, 40 * 72, seed, every);
        mlp.up = LanesWithSpecials(dtype, 40 * 72, seed + 10, every);
        mlp.down = LanesWithSpecials(dtype, 40 * 72, seed + 20, every);
        mlp.x = LanesWithSpecials(dtype, 9 * 40, seed + 30, every);
        mlp.dy = LanesWithSpecials(dtype, 9 * 40, seed + 40, every);
        ExpectTheBitsOfTheSums(mlp, pool_);
      }
    }
  }
}

// One panel times up to a tile of tokens, [num_tokens][depth] times [depth][32].
Lanes OnePanel(Dtype dtype, const Lanes& tokens, const Lanes& panel) {
  const auto depth = static_cast<int64_t>(panel.size()) / internal::kPanelOutputs;
  const auto num_tokens = static_cast<int64_t>(tokens.size()) / depth;
  Workspace panels(static_cast<int64_t>(panel.size()) * 2);
  std::memcpy(panels.data(), panel.data(), panel.size() * 2);
  std::vector<float> tiles(tokens.size());
  internal::FillTile(dtype, tokens.data(), num_tokens, depth, 0, tiles.data());
  Lanes out(static_cast<size_t>(num_tokens * internal::kPanelOutputs));
  internal::Product product{{reinterpret_cast<const uint16_t*>(panels.data()), tiles.data()},
                            {},
                            depth,
                            internal::kPanelOutputs,
                            num_tokens,
                            out.data()};
  internal::ComputeUnit(dtype, product, 0);
  return out;
}

struct Factors {
  float token, weight;
};

// The sum of the terms, as BF16.
void ExpectSum(const std::vector<Factors>& terms, float expected) {
  Lanes x(8), panel(8 * 32);
  for (size_t k = 0; k < terms.size(); ++k) {
    x[k] = Rounded(Dtype::kBf16, terms[k].token);
    for (size_t j = 0; j < 32; ++j) panel[k * 32 + j] = Rounded(Dtype::kBf16, terms[k].weight);
  }
  for (const uint16_t lane : OnePanel(Dtype::kBf16, x, panel)) {
    EXPECT_EQ(Widened(Dtype::kBf16, lane), expected);
  }
}

// 2^128 alone overflows; together with -2^127 it does not.
TEST_P(CpuMlpTest, FusesWhereAProductOverflows) {
  ExpectSum({{-0x1p63f, 0x1p64f}, {0x1p64f, 0x1p64f}}, 0x1p127f);
  ExpectSum({{0x1p63f, 0x1p64f}, {0x1p64f, -0x1p64f}}, -0x1p127f);
}

// 2^-134 + 2^-149 - 2^-150 is halfway between float32's 2^-134 and the next number. It becomes
// 2^-134, which is halfway between 0 and the least number of BF16, and becomes 0. If the last
// product were rounded by itself, it would be 0, and the result would be the least number.
TEST_P(CpuMlpTest, FusesWhereAProductUnderflows) {
  ExpectSum({{0x1p-67f, 0x1p-67f}, {0x1p-74f, 0x1p-75f}, {-0x1p-75f, 0x1p-75f}}, 0.0f);
  ExpectSum({{0x1p-67f, 0x1p-67f}, {0x1p-74f, 0x1p-75f}, {0x1p-30f, -0x1p-120f}}, 0.0f);
  ExpectSum({{0x1p-67f, 0x1p-67f}, {0x1p-74f, 0x1p-75f}}, 0x1p-133f);
}

// The same with the greatest product that is inexact: 65025 times 2^-150. The terms before it are
// 65280 and 1 times 2^-149, so what is left is halfway between 2^-134 and the next number.
TEST_P(CpuMlpTest, FusesTheGreatestInexactProduct) {
  ExpectSum({{255 * 0x1p-75f, 0x1p-66f}, {0x1p-74f, 0x1p-75f}, {-255 * 0x1p-75f, 255 * 0x1p-75f}},
            0.0f);
}

// Exponents at either end of the range of float32.
TEST_P(CpuMlpTest, HasTheBitsOfTheSumsWhereProductsAreInexact) {
  for (const double scale : {0x1p-72, 0x1p-70, 0x1p-68, 0x1p-66, 0x1p-64, 0x1p63, 0x1p64}) {
    for (uint32_t seed = 0; seed < 4; ++seed) {
      const Lanes x = RandomLanes(Dtype::kBf16, 12 * 40, seed, scale);
      const Lanes panel = RandomLanes(Dtype::kBf16, 40 * 32, seed + 9, scale);
      const Lanes expected = Multiply(Dtype::kBf16, x, {panel, false}, 40, 32);
      EXPECT_TRUE(SameTensor(Dtype::kBf16, AsPatterns(OnePanel(Dtype::kBf16, x, panel)),
                             AsPatterns(expected)))
          << scale;
    }
  }
}

// In float64, which holds each product exactly and the sum much better than float32.
TEST_P(CpuMlpTest, IsAsAccurateAsOneFloat32Accumulator) {
  constexpr int64_t kDepth = 4096;
  for (const Dtype dtype : kNarrowDtypes) {
    const double half_ulp = dtype == Dtype::kFp16 ? 0x1p-11 : 0x1p-8;
    const Lanes x = RandomLanes(dtype, 3 * kDepth, 1);
    const Lanes panel = RandomLanes(dtype, kDepth * 32, 2);
    const Lanes out = OnePanel(dtype, x, panel);
    for (size_t i = 0; i < out.size(); ++i) {
      double sum = 0, size = 0;
      for (size_t k = 0; k < kDepth; ++k) {
        const double term =
            Value(dtype, x[i / 32 * kDepth + k]) * Value(dtype, panel[k * 32 + i % 32]);
        sum += term;
        size += std::abs(term);
      }
      const double bound = kDepth * 0x1p-24 * size;
      EXPECT_NEAR(Value(dtype, out[i]), sum, bound + half_ulp * (std::abs(sum) + bound));
    }
  }
}

// Runs on the best instruction set. Large enough to be shared.
constexpr Sizes kLargeSizes{264, 136};
constexpr int64_t kManyTokens = 1000;  // enough that filling tiles is shared, too

TEST(CpuMlpTokensTest, GiveTheSameBitsAmongAnyOthers) {
  CpuPool pool(2);
  for (const Dtype dtype : kNarrowDtypes) {
    const Mlp all(dtype, kLargeSizes, 150);
    const auto weights = Pack(all);
    const Lanes y = Forward(all, *weights, pool), dx = Backward(all, *weights, pool);
    for (const int64_t num_tokens : {1, 2, 5, 12, 13, 49}) {
      for (const int64_t first : {0, 1, 11, 47, 95}) {
        const Mlp part = Part(all, first, num_tokens);
        const auto begin = first * kLargeSizes.hidden;
        const auto end = begin + num_tokens * kLargeSizes.hidden;
        EXPECT_TRUE(Forward(part, *weights, pool) == Lanes(y.begin() + begin, y.begin() + end))
            << Describe(part) << " from " << first;
        EXPECT_TRUE(Backward(part, *weights, pool) == Lanes(dx.begin() + begin, dx.begin() + end))
            << Describe(part) << " from " << first;
      }
    }
  }
}

TEST(CpuMlpThreadsTest, GiveTheBitsOfOneThread) {
  CpuPool alone(1);
  for (const Dtype dtype : kNarrowDtypes) {
    const Mlp mlp(dtype, kLargeSizes, kManyTokens);
    const auto weights = Pack(mlp);
    const Lanes y = Forward(mlp, *weights, alone), dx = Backward(mlp, *weights, alone);
    for (const int num_threads : {2, 3, 4, 40}) {
      CpuPool pool(num_threads);
      EXPECT_TRUE(Forward(mlp, *weights, pool) == y) << num_threads;
      EXPECT_TRUE(Backward(mlp, *weights, pool) == dx) << num_threads;
    }
  }
}

TEST(CpuMlpThreadsTest, ServeSeveralCallersAtOnce) {
  CpuPool pool(3);
  const Mlp mlp(Dtype::kBf16, kLargeSizes, 100);
  const auto weights = Pack(mlp);
  const Lanes y = Forward(mlp, *weights, pool), dx = Backward(mlp, *weights, pool);
  std::vector<std::thread> callers;
  callers.reserve(4);
  for (int caller = 0; caller < 4; ++caller) {
    callers.emplace_back([&, caller] {
      for (int round = 0; round < 10; ++round) {
        const bool is_forward = caller % 2 == 0;
        EXPECT_TRUE(is_forward ? Forward(mlp, *weights, pool) == y
                               : Backward(mlp, *weights, pool) == dx);
      }
    });
  }
  for (std::thread& caller : callers) caller.join();
}

// The rounding mode belongs to a thread: what another thread than the caller computes is rounded to
// nearest.
TEST(CpuMlpThreadsTest, ShareLargeWork) {
  const Mlp mlp(Dtype::kBf16, kLargeSizes, kManyTokens);
  const auto weights = Pack(mlp);
  CpuPool alone(1), pool(2);
  ASSERT_EQ(std::fesetround(FE_UPWARD), 0);
  const Lanes upward = Forward(mlp, *weights, alone);
  bool is_shared = false;
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(20);
  while (!is_shared && std::chrono::steady_clock::now() < end) {
    is_shared = Forward(mlp, *weights, pool) != upward;
  }
  ASSERT_EQ(std::fesetround(FE_TONEAREST), 0);
  EXPECT_TRUE(is_shared);
}

TEST(CpuMlpThreadsTest, LeaveSmallWorkToTheCaller) {
  const Mlp mlp(Dtype::kBf16, {128, 128}, 63);
  const auto weights = Pack(mlp);
  CpuPool alone(1), pool(4);
  const Lanes nearest = Forward(mlp, *weights, alone);
  ASSERT_EQ(std::fesetround(FE_UPWARD), 0);
  const Lanes upward = Forward(mlp, *weights, alone);
  for (int round = 0; round < 500; ++round) EXPECT_TRUE(Forward(mlp, *weights, pool) == upward);
  ASSERT_EQ(std::fesetround(FE_TONEAREST), 0);
  EXPECT_FALSE(nearest == upward);
}

// Good arguments of a small MLP, to be made faulty.
class CpuMlpArgumentsTest : public testing::Test {
 protected:
  MlpStatus Create(const MlpMatrices& matrices) {
    std::unique_ptr<const CpuMlpWeights> made;
    const MlpStatus status = CpuMlpWeights::Create(matrices, MlpPacking::kForward, made);
    EXPECT_EQ(made != nullptr, status == MlpStatus::kOk);
    return status;
  }
  MlpForward forward() {
    return {mlp_.x.data(), out_.data(), 2, workspace_.span().first(forward_)};
  }
  MlpBackward backward() {
    return {mlp_.x.data(), mlp_.dy.data(), out_.data(), 2, workspace_.span()};
  }
  MlpStatus Status(const MlpForward& call) { return weights_->Forward(call, pool_); }
  MlpStatus Status(const MlpBackward& call) { return weights_->Backward(call, pool_); }
  void ExpectNothingWritten() { EXPECT_EQ(out_, Lanes(32, 0x5555)); }

  static const void* Odd(const Lanes& lanes) {
    return reinterpret_cast<const std::byte*>(lanes.data()) + 1;
  }

  Mlp mlp_{Dtype::kFp16, {16, 8}, 2};
  std::unique_ptr<const CpuMlpWeights> weights_ = Pack(mlp_);
  CpuPool pool_{1};
  Lanes out_ = Lanes(32, 0x5555);
  const size_t forward_ = static_cast<size_t>(weights_->ForwardWorkspaceBytes(2));
  Workspace workspace_{weights_->BackwardWorkspaceBytes(2)};
};

TEST_F(CpuMlpArgumentsTest, TakesGoodOnes) {
  EXPECT_EQ(Create(mlp_.Matrices()), MlpStatus::kOk);
  EXPECT_EQ(Status(forward()), MlpStatus::kOk);
  EXPECT_EQ(Status(backward()), MlpStatus::kOk);
}

TEST_F(CpuMlpArgumentsTest, RefusesFp32AndUnknownDtypes) {
  for (const Dtype dtype : {Dtype::kFp32, static_cast<Dtype>(3), static_cast<Dtype>(-1)}) {
    MlpMatrices matrices = mlp_.Matrices();
    matrices.dtype = dtype;
    EXPECT_EQ(Create(matrices), MlpStatus::kBadDtype);
  }
}

TEST_F(CpuMlpArgumentsTest, RefusesSizesThatAreNoMultiplesOfEight) {
  for (const int64_t size : {int64_t{0}, int64_t{-8}, int64_t{4}, int64_t{12}, kMaxMlpSize + 8}) {
    MlpMatrices hidden = mlp_.Matrices(), intermediate = mlp_.Matrices();
    hidden.hidden = intermediate.intermediate = size;
    EXPECT_EQ(Create(hidden), MlpStatus::kBadSize) << size;
    EXPECT_EQ(Create(intermediate), MlpStatus::kBadSize) << size;
  }
}

TEST_F(CpuMlpArgumentsTest, RefusesBadPointersToWeights) {
  for (const void* MlpMatrices::*const matrix :
       {&MlpMatrices::gate, &MlpMatrices::up, &MlpMatrices::down}) {
    MlpMatrices null = mlp_.Matrices(), odd = mlp_.Matrices();
    null.*matrix = nullptr;
    odd.*matrix = Odd(mlp_.gate);
    EXPECT_EQ(Create(null), MlpStatus::kNullPointer);
    EXPECT_EQ(Create(odd), MlpStatus::kMisaligned);
  }
}

TEST_F(CpuMlpArgumentsTest, RefusesBadCounts) {
  for (const int64_t count : {int64_t{-1}, kMaxMlpTokens + 1, INT64_MIN, INT64_MAX}) {
    MlpForward forward_call = forward();
    MlpBackward backward_call = backward();
    forward_call.num_tokens = backward_call.num_tokens = count;
    EXPECT_EQ(Status(forward_call), MlpStatus::kBadCount);
    EXPECT_EQ(Status(backward_call), MlpStatus::kBadCount);
  }
}

TEST_F(CpuMlpArgumentsTest, TakesNoTokensWithNoPointers) {
  EXPECT_EQ(Status(MlpForward{nullptr, nullptr, 0, {}}), MlpStatus::kOk);
  EXPECT_EQ(Status(MlpBackward{nullptr, nullptr, nullptr, 0, {}}), MlpStatus::kOk);
}

TEST_F(CpuMlpArgumentsTest, RefusesBadTensors) {
  const void* const odd = Odd(mlp_.x);
  void* const odd_out = reinterpret_cast<std::byte*>(out_.data()) + 1;
  MlpForward no_x = forward(), no_y = forward(), odd_x = forward(), odd_y = forward();
  no_x.x = no_y.y = nullptr;
  odd_x.x = odd;
  odd_y.y = odd_out;
  EXPECT_EQ(Status(no_x), MlpStatus::kNullPointer);
  EXPECT_EQ(Status(no_y), MlpStatus::kNullPointer);
  EXPECT_EQ(Status(odd_x), MlpStatus::kMisaligned);
  EXPECT_EQ(Status(odd_y), MlpStatus::kMisaligned);
  for (const int i : {0, 1, 2}) {
    MlpBackward null = backward(), misaligned = backward();
    (i == 0 ? null.x : null.dy) = nullptr;
    (i == 0 ? misaligned.x : misaligned.dy) = odd;
    if (i == 2) {
      null = misaligned = backward();
      null.dx = nullptr;
      misaligned.dx = odd_out;
    }
    EXPECT_EQ(Status(null), MlpStatus::kNullPointer);
    EXPECT_EQ(Status(misaligned), MlpStatus::kMisaligned);
  }
  ExpectNothingWritten();
}

TEST_F(CpuMlpArgumentsTest, RefusesBadWorkspaces) {
  MlpForward small = forward(), misaligned = forward(), none = forward();
  small.workspace = small.workspace.first(forward_ - 1);
  misaligned.workspace = workspace_.span().subspan(32, forward_);
  none.workspace = {};
  EXPECT_EQ(Status(small), MlpStatus::kWorkspaceTooSmall);
  EXPECT_EQ(Status(misaligned), MlpStatus::kMisaligned);
  EXPECT_EQ(Status(none), MlpStatus::kNullPointer);
  MlpBackward small_backward = backward();
  small_backward.workspace = workspace_.span().first(workspace_.span().size() - 1);
  EXPECT_EQ(Status(small_backward), MlpStatus::kWorkspaceTooSmall);
  ExpectNothingWritten();
}

TEST_F(CpuMlpArgumentsTest, RefusesBackwardOfWeightsForForward) {
  ASSERT_EQ(CpuMlpWeights::Create(mlp_.Matrices(), MlpPacking::kForward, weights_), MlpStatus::kOk);
  EXPECT_EQ(Status(backward()), MlpStatus::kNotPacked);
  ExpectNothingWritten();
  EXPECT_EQ(Status(forward()), MlpStatus::kOk);
}

// Three matrices of 16 times 8: panels of 32 outputs, 16 or 8 deep, of 2 bytes each.
TEST_F(CpuMlpArgumentsTest, SaysHowManyBytesItNeeds) {
  EXPECT_EQ(weights_->size_bytes(), (16 + 16 + 8 + 8 + 8 + 16) * 32 * 2);
  EXPECT_EQ(weights_->ForwardWorkspaceBytes(0), 0);
  // 33 tokens of 16 floats, in whole cache lines, and 2 or 3 times 33 tokens of 8 elements.
  EXPECT_EQ(weights_->ForwardWorkspaceBytes(33), 33 * 64 + 2 * 576);
  EXPECT_EQ(weights_->BackwardWorkspaceBytes(33), 2 * 33 * 64 + 3 * 576);
}

TEST(MlpStatusTest, HasAPhraseForEach) {
  for (int i = 0; i <= static_cast<int>(MlpStatus::kOutOfMemory); ++i) {
    EXPECT_STRNE(ToString(static_cast<MlpStatus>(i)), "unknown status") << i;
  }
  EXPECT_STREQ(ToString(static_cast<MlpStatus>(99)), "unknown status");
}

}  // namespace
}  // namespace swiglu::kernels
