// SPDX-License-Identifier: Apache-2.0
//
// The gradients of an MLP's weights on the CPU against sums that are computed one by one: the bits,
// whatever the number of tokens, their chunks, the threads and the instruction set; special values;
// accuracy; what is written; refused calls.
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "swiglu/cpu_mlp.h"
#include "swiglu/cpu_pool.h"
#include "tests/kernels/cpu_mlp_problem.h"
#include "tests/kernels/cpu_runner.h"
#include "tests/kernels/patterns.h"

namespace swiglu::kernels {
namespace {

using Floats = std::vector<float>;

Patterns FloatPatterns(const Floats& values) {
  Patterns patterns;
  for (const float value : values) patterns.push_back(std::bit_cast<uint32_t>(value));
  return patterns;
}

// One accumulator for each element of rows^T columns, tokens ascending.
Floats SumOverTokens(Dtype dtype, const Lanes& rows, const Lanes& columns, int64_t num_tokens) {
  const Floats a = AllWidened(dtype, rows), b = AllWidened(dtype, columns);
  const size_t num_rows = a.size() / static_cast<size_t>(num_tokens);
  const size_t num_columns = b.size() / static_cast<size_t>(num_tokens);
  Floats sums(num_rows * num_columns);
  for (size_t t = 0; t < static_cast<size_t>(num_tokens); ++t) {
    for (size_t r = 0; r < num_rows; ++r) {
      for (size_t j = 0; j < num_columns; ++j) {
        float& sum = sums[r * num_columns + j];
        sum = std::fma(a[t * num_rows + r], b[t * num_columns + j], sum);
      }
    }
  }
  return sums;
}

struct Gradients {
  Floats gate, up, down;
};

Gradients Expect(const Mlp& mlp) {
  const auto [h, df, de] = Activate(mlp);
  return {SumOverTokens(mlp.dtype, de, mlp.x, mlp.num_tokens),
          SumOverTokens(mlp.dtype, df, mlp.x, mlp.num_tokens),
          SumOverTokens(mlp.dtype, mlp.dy, h, mlp.num_tokens)};
}

constexpr size_t kGuards = 16;  // floats behind each gradient
constexpr float kGuardFloat = 3.25f;

// Room for the gradients, filled with NaNs and guarded.
Gradients Room(const Mlp& mlp) {
  Floats one(mlp.gate.size() + kGuards, kGuardFloat);
  for (size_t i = 0; i < mlp.gate.size(); ++i) one[i] = std::numeric_limits<float>::quiet_NaN();
  return {one, one, one};
}

void DropGuards(Floats& gradient) {
  for (size_t i = 0; i < kGuards; ++i) {
    EXPECT_EQ(gradient.back(), kGuardFloat) << "written past a gradient's end";
    gradient.pop_back();
  }
}

void Compute(const Mlp& mlp, const CpuMlpWeights& weights, void* dx, const MlpWeightGradients& out,
             CpuPool& pool) {
  Workspace workspace(weights.BackwardWorkspaceBytes(mlp.num_tokens));
  const MlpBackward call{mlp.x.data(), mlp.dy.data(), dx, mlp.num_tokens, workspace.span(), out};
  EXPECT_EQ(weights.Backward(call, pool), MlpStatus::kOk);
}

// All three, in chunks of `chunk` tokens.
Gradients ComputeInChunks(const Mlp& mlp, int64_t chunk, CpuPool& pool) {
  const auto weights = Pack(mlp);
  Gradients room = Room(mlp);
  MlpWeightGradients out{room.gate.data(), room.up.data(), room.down.data()};
  for (int64_t first = 0; first < mlp.num_tokens; first += chunk) {
    const Mlp part = Part(mlp, first, std::min(chunk, mlp.num_tokens - first));
    Compute(part, *weights, nullptr, out, pool);
    out.sums = MlpSums::kContinue;
  }
  for (Floats* gradient : {&room.gate, &room.up, &room.down}) DropGuards(*gradient);
  return room;
}

Gradients ComputeAtOnce(const Mlp& mlp, CpuPool& pool) {
  return ComputeInChunks(mlp, mlp.num_tokens, pool);
}

void ExpectSame(const Gradients& actual, const Gradients& expected, const std::string& what) {
  const auto same = [](const Floats& a, const Floats& b) {
    return SameTensor(Dtype::kFp32, FloatPatterns(a), FloatPatterns(b));
  };
  EXPECT_TRUE(same(actual.gate, expected.gate)) << what << " gate";
  EXPECT_TRUE(same(actual.up, expected.up)) << what << " up";
  EXPECT_TRUE(same(actual.down, expected.down)) << what << " down";
}

// Runs on one instruction set.
class CpuMlpGradientsTest : public KernelTest {
 protected:
  void ExpectTheBitsOfTheSums(const Mlp& mlp) {
    ExpectSame(ComputeAtOnce(mlp, pool_), Expect(mlp), Describe(mlp));
  }

  CpuPool pool_{1};
};

INSTANTIATE_TEST_SUITE_P(Cpu, CpuMlpGradientsTest, testing::ValuesIn(EveryCpuTarget()),
                         NameOfChoice);

TEST_P(CpuMlpGradientsTest, HaveTheBitsOfTheSumsAtTheEdgesOfTilesAndPanels) {
  for (const Dtype dtype : kNarrowDtypes) {
    for (const int64_t hidden : {8, 16, 24, 32, 40, 48, 56, 72}) {
      for (const int64_t intermediate : {8, 16, 24, 32, 40, 48, 56, 104}) {
        ExpectTheBitsOfTheSums(Mlp(dtype, {hidden, intermediate}, 3));
      }
    }
  }
}

TEST_P(CpuMlpGradientsTest, HaveTheBitsOfTheSumsForAnyNumberOfTokens) {
  for (const Dtype dtype : kNarrowDtypes) {
    for (int64_t num_tokens = 1; num_tokens <= 40; ++num_tokens) {
      ExpectTheBitsOfTheSums(Mlp(dtype, {40, 72}, num_tokens));
    }
  }
}

TEST_P(CpuMlpGradientsTest, HaveTheBitsOfTheSumsForSpecialValues) {
  for (const Dtype dtype : kNarrowDtypes) {
    for (const uint32_t every : {2u, 20u, 200u}) {
      Mlp mlp(dtype, {40, 72}, 9);
      mlp.gate = LanesWithSpecials(dtype, 40 * 72, every, every);
      mlp.x = LanesWithSpecials(dtype, 9 * 40, every + 1, every);
      mlp.dy = LanesWithSpecials(dtype, 9 * 40, every + 2, every);
      ExpectTheBitsOfTheSums(mlp);
    }
  }
}

// Exponents at either end of the range of float32: products that it cannot hold exactly.
TEST_P(CpuMlpGradientsTest, FuseWhereProductsAreInexact) {
  for (const double scale : {0x1p-72, 0x1p-68, 0x1p-64, 0x1p62, 0x1p64}) {
    Mlp mlp(Dtype::kBf16, {40, 24}, 20);
    mlp.x = RandomLanes(Dtype::kBf16, 20 * 40, 5, scale);
    mlp.dy = RandomLanes(Dtype::kBf16, 20 * 40, 6, scale);
    ExpectTheBitsOfTheSums(mlp);
  }
}

TEST_P(CpuMlpGradientsTest, HaveTheSameBitsInAnyChunks) {
  for (const Dtype dtype : kNarrowDtypes) {
    const Mlp mlp(dtype, {40, 56}, 50);
    const Gradients expected = ComputeAtOnce(mlp, pool_);
    for (const int64_t chunk : {1, 7, 16, 32, 49}) {
      ExpectSame(ComputeInChunks(mlp, chunk, pool_), expected, std::to_string(chunk));
    }
  }
}

// In float64, which holds each product exactly and the sums much better than float32.
TEST_P(CpuMlpGradientsTest, AreAsAccurateAsOneFloat32Accumulator) {
  constexpr int64_t kTokens = 2000;
  for (const Dtype dtype : kNarrowDtypes) {
    const Mlp mlp(dtype, {8, 16}, kTokens);
    const Gradients actual = ComputeAtOnce(mlp, pool_);
    const Lanes h = Activate(mlp).h;
    for (size_t i = 0; i < actual.down.size(); ++i) {
      double sum = 0, size = 0;
      for (size_t t = 0; t < kTokens; ++t) {
        const double term = Value(dtype, mlp.dy[t * 8 + i / 16]) * Value(dtype, h[t * 16 + i % 16]);
        sum += term;
        size += std::abs(term);
      }
      EXPECT_NEAR(actual.down[i], sum, kTokens * 0x1p-24 * size);
    }
  }
}

// Runs on the best instruction set.
TEST(CpuMlpGradientsThreadsTest, GiveTheBitsOfOneThread) {
  CpuPool alone(1);
  for (const Dtype dtype : kNarrowDtypes) {
    const Mlp mlp(dtype, {264, 136}, 1000);
    const Gradients expected = ComputeAtOnce(mlp, alone);
    for (const int num_threads : {2, 3, 40}) {
      CpuPool pool(num_threads);
      ExpectSame(ComputeAtOnce(mlp, pool), expected, std::to_string(num_threads));
    }
  }
}

// One MLP and a call that tests change.
class CpuMlpGradientsCallTest : public testing::Test {
 protected:
  MlpStatus Status(const MlpBackward& call) { return weights_->Backward(call, pool_); }
  MlpBackward Call(const MlpWeightGradients& gradients) {
    return {mlp_.x.data(), mlp_.dy.data(), dx_.data(), 5, workspace_.span(), gradients};
  }

  const Mlp mlp_{Dtype::kFp16, {24, 16}, 5};
  const std::unique_ptr<const CpuMlpWeights> weights_ = Pack(mlp_);
  CpuPool pool_{1};
  const Gradients all_ = ComputeAtOnce(mlp_, pool_);
  Workspace workspace_{weights_->BackwardWorkspaceBytes(5)};
  Lanes dx_ = Lanes(mlp_.x.size(), 0x5555);
  Floats one_ = Floats(mlp_.gate.size(), kGuardFloat);
};

TEST_F(CpuMlpGradientsCallTest, ComputesEachByItself) {
  Compute(mlp_, *weights_, nullptr, {.gate = one_.data()}, pool_);
  EXPECT_EQ(one_, all_.gate);
  Compute(mlp_, *weights_, nullptr, {.up = one_.data()}, pool_);
  EXPECT_EQ(one_, all_.up);
  Compute(mlp_, *weights_, nullptr, {.down = one_.data()}, pool_);
  EXPECT_EQ(one_, all_.down);
}

TEST_F(CpuMlpGradientsCallTest, LeavesDxAsItIsWithoutGradients) {
  Compute(mlp_, *weights_, dx_.data(), {.up = one_.data()}, pool_);
  EXPECT_EQ(dx_, Backward(mlp_, *weights_, pool_));
  EXPECT_EQ(one_, all_.up);
}

TEST_F(CpuMlpGradientsCallTest, TakesGradientsAlignedToTheirElement) {
  Floats shifted(one_.size() + 1);
  Compute(mlp_, *weights_, nullptr, {.gate = shifted.data() + 1}, pool_);
  EXPECT_EQ(Floats(shifted.begin() + 1, shifted.end()), all_.gate);
}

TEST_F(CpuMlpGradientsCallTest, OfNoTokensAreZero) {
  Floats up = one_, down = one_;
  const MlpWeightGradients gradients{one_.data(), up.data(), down.data()};
  EXPECT_EQ(Status({nullptr, nullptr, nullptr, 0, {}, gradients}), MlpStatus::kOk);
  for (const Floats& gradient : {one_, up, down}) {
    EXPECT_EQ(gradient, Floats(gradient.size(), 0.0f));
  }
}

TEST_F(CpuMlpGradientsCallTest, OfNoFurtherTokensStayAsTheyAre) {
  const MlpWeightGradients gradients{.gate = one_.data(), .sums = MlpSums::kContinue};
  EXPECT_EQ(Status({nullptr, nullptr, nullptr, 0, {}, gradients}), MlpStatus::kOk);
  EXPECT_EQ(one_, Floats(one_.size(), kGuardFloat));
}

TEST_F(CpuMlpGradientsCallTest, RefusesMisalignedOnes) {
  auto* const odd = reinterpret_cast<float*>(reinterpret_cast<std::byte*>(one_.data()) + 2);
  EXPECT_EQ(Status(Call({.gate = odd})), MlpStatus::kMisaligned);
  EXPECT_EQ(Status(Call({.up = odd})), MlpStatus::kMisaligned);
  EXPECT_EQ(Status(Call({.down = odd})), MlpStatus::kMisaligned);
  EXPECT_EQ(one_, Floats(one_.size(), kGuardFloat));
}

TEST_F(CpuMlpGradientsCallTest, RefusesNoOutputAtAll) {
  MlpBackward call = Call({});
  call.dx = nullptr;
  EXPECT_EQ(Status(call), MlpStatus::kNullPointer);
}

TEST_F(CpuMlpGradientsCallTest, RefusesNoInputs) {
  MlpBackward no_x = Call({.gate = one_.data()}), no_dy = no_x;
  no_x.x = no_dy.dy = nullptr;
  EXPECT_EQ(Status(no_x), MlpStatus::kNullPointer);
  EXPECT_EQ(Status(no_dy), MlpStatus::kNullPointer);
  EXPECT_EQ(one_, Floats(one_.size(), kGuardFloat));
}

// Panels of 32 columns take more than tiles of 8 rows.
TEST(CpuMlpGradientsWorkspaceTest, HasRoomForAPanelOfTheLeastSizes) {
  const auto weights = Pack(Mlp(Dtype::kFp16, {8, 8}, 1));
  EXPECT_EQ(weights->BackwardWorkspaceBytes(10), 320 + 640 + 3 * 192);
}

}  // namespace
}  // namespace swiglu::kernels
