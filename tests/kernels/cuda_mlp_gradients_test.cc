// SPDX-License-Identifier: Apache-2.0
//
// The gradients of an MLP's weights on CUDA against a plain reference: the bits, whatever the
// sizes, the cuts between calls and the other outputs; what they must not touch; refused calls.
#include <cuda_runtime_api.h>
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "swiglu/cuda_mlp.h"
#include "tests/kernels/cuda_mlp_problem.h"
#include "tests/kernels/cuda_mlp_reference.h"
#include "tests/kernels/cuda_runner.h"
#include "tests/kernels/patterns.h"

namespace swiglu::kernels {
namespace {

// Outputs of backward.
struct Wanted {
  bool dx, gate, up, down;
};
constexpr Wanted kAllOutputs{true, true, true, true};

std::string Describe(const Wanted& wanted) {
  return std::string(wanted.dx ? " dx" : "") + (wanted.gate ? " d_gate" : "") +
         (wanted.up ? " d_up" : "") + (wanted.down ? " d_down" : "");
}

// Memory for all outputs of an MLP, each with guards behind it.
struct Outputs {
  explicit Outputs(const Mlp& mlp)
      : dx(int64_t{mlp.max_tokens()} * mlp.hidden() + kGuards),
        gate(mlp.matrix_count() + kGuards),
        up(mlp.matrix_count() + kGuards),
        down(mlp.matrix_count() + kGuards) {}

  void Reset(int byte = 0x55) {
    dx.Reset(byte);
    for (Sums* sums : {&gate, &up, &down}) sums->Reset(byte);
  }

  Elements dx;
  Sums gate, up, down;
};

// What the reference makes of the first tokens.
struct Expected {
  Expected(const Mlp& mlp, int count) : Expected(mlp, mlp.problem(count)) {}

  Elements dx;
  Sums gate, up, down;
  Elements scratch;
  ReferenceHidden hidden;

 private:
  Expected(const Mlp& mlp, const CudaMlpProblem& problem)
      : dx(int64_t{problem.num_tokens} * mlp.hidden()),
        gate(mlp.matrix_count()),
        up(mlp.matrix_count()),
        down(mlp.matrix_count()),
        scratch(ReferenceScratchElements(problem)),
        hidden(HiddenIn(problem, scratch.get())) {
    EXPECT_EQ(ReferenceBackward(problem, scratch.get(), dx.get()), cudaSuccess);
    EXPECT_EQ(ReferenceGradients(problem, hidden, gate.get(), up.get(), down.get()), cudaSuccess);
    EXPECT_EQ(cudaDeviceSynchronize(), cudaSuccess);
  }
};

// Enqueues one call. dx of token 0 is at the beginning of `outputs.dx`.
cudaError_t Launch(const Mlp& mlp, const Tokens& tokens, const Wanted& wanted, MlpSums sums,
                   const Outputs& outputs, const Elements& workspace, MlpPath path,
                   cudaStream_t stream) {
  const CudaMlpWeights weights = mlp.weights();
  CudaMlpBackward call{};
  call.x = mlp.x(tokens.first);
  call.dy = mlp.dy(tokens.first);
  if (wanted.dx) call.dx = outputs.dx.get() + int64_t{tokens.first} * mlp.hidden();
  if (wanted.gate) call.gradients.gate = outputs.gate.get();
  if (wanted.up) call.gradients.up = outputs.up.get();
  if (wanted.down) call.gradients.down = outputs.down.get();
  call.num_tokens = tokens.count;
  call.gradients.sums = sums;
  call.workspace = workspace.get();
  call.workspace_bytes = wanted.down ? MlpGradientsWorkspaceBytes(weights, tokens.count)
                                     : MlpBackwardWorkspaceBytes(weights, tokens.count);
  return MlpBackwardCuda(weights, call, path, stream);
}

// Memory for a workspace that any call for this MLP can have, with guards behind it.
Elements Workspace(const Mlp& mlp) {
  return Elements(MlpGradientsWorkspaceBytes(mlp.weights(), mlp.max_tokens()) / 2 + kGuards);
}

// Expects what is `wanted` of the first `count` tokens, and that all else is as Outputs::Reset left
// it.
void ExpectOutputs(const Mlp& mlp, int count, const Wanted& wanted, const Outputs& outputs,
                   const Expected& expected, const std::string& what) {
  const Elements dx_as_before(outputs.dx.count());
  const int64_t num_dx = wanted.dx ? int64_t{count} * mlp.hidden() : 0;
  ExpectSame(mlp.dtype(), outputs.dx.get(), expected.dx.get(), num_dx, what + ": dx");
  ExpectSame(mlp.dtype(), outputs.dx.get() + num_dx, dx_as_before.get(),
             outputs.dx.count() - num_dx, what + ": behind dx");
  const Sums as_before(outputs.gate.count());
  const auto expect_sums = [&](bool is_wanted, const Sums& actual, const Sums& right,
                               const std::string& name) {
    const int64_t num_sums = is_wanted ? mlp.matrix_count() : 0;
    ExpectSame(actual.get(), right.get(), num_sums, what + ": " + name);
    ExpectSame(actual.get() + num_sums, as_before.get(), actual.count() - num_sums,
               what + ": behind " + name);
  };
  expect_sums(wanted.gate, outputs.gate, expected.gate, "d_gate");
  expect_sums(wanted.up, outputs.up, expected.up, "d_up");
  expect_sums(wanted.down, outputs.down, expected.down, "d_down");
}

class CudaMlpGradientsTest : public testing::TestWithParam<MlpPath> {
 protected:
  void SetUp() override {
    const std::string missing = WhyNoMlpPath(GetParam());
    if (!missing.empty()) GTEST_SKIP() << missing;
  }

  // Computes all outputs of the first tokens for each of `counts`, and expects the reference's bits
  // and that nothing else is written.
  void ExpectTheBitsOfTheReference(const Mlp& mlp, const std::vector<int>& counts) {
    Outputs outputs(mlp);
    Elements workspace = Workspace(mlp);
    const Elements guards(kGuards);
    for (const int count : counts) {
      const std::string what = mlp.Describe() + " M=" + std::to_string(count);
      outputs.Reset();
      workspace.Reset();
      ASSERT_EQ(Launch(mlp, {0, count}, kAllOutputs, MlpSums::kBegin, outputs, workspace,
                       GetParam(), nullptr),
                cudaSuccess);
      ExpectOutputs(mlp, count, kAllOutputs, outputs, Expected(mlp, count), what);
      const int64_t num_workspace = MlpGradientsWorkspaceBytes(mlp.weights(), count) / 2;
      ExpectSame(mlp.dtype(), workspace.get() + num_workspace, guards.get(), kGuards,
                 what + ": behind the workspace");
      if (HasFailure()) return;
    }
  }
};

INSTANTIATE_TEST_SUITE_P(Cuda, CudaMlpGradientsTest,
                         testing::Values(MlpPath::kAuto, MlpPath::kMma, MlpPath::kWgmma),
                         NameOfMlpPath);

// Around the edges of steps of 16 tokens and of stages of 64.
TEST_P(CudaMlpGradientsTest, HaveTheBitsOfTheReferenceForAnyNumberOfTokens) {
  for (const Dtype dtype : kNarrowDtypes) {
    ExpectTheBitsOfTheReference(
        Mlp(dtype, {136, 264}, 513),
        {1,   2,   8,   9,   15,  16,  17,  31,  32,  33,  47,  48,  49,  63,
         64,  65,  79,  80,  81,  95,  97,  100, 127, 128, 129, 144, 150, 176,
         191, 192, 193, 255, 256, 257, 300, 320, 383, 384, 385, 511, 512, 513});
  }
}

TEST_P(CudaMlpGradientsTest, HaveTheBitsOfTheReferenceAtTheEdgesOfSizes) {
  for (const Dtype dtype : kNarrowDtypes) {
    for (const int hidden : {8, 24, 64, 72, 128, 136, 264}) {
      for (const int intermediate : {8, 16, 72, 120, 128, 136, 248}) {
        ExpectTheBitsOfTheReference(Mlp(dtype, {hidden, intermediate}, 100), {5, 100});
        if (HasFailure()) return;
      }
    }
  }
}

// More tiles than run at a time, and more than 16 tiles of rows and of columns.
TEST_P(CudaMlpGradientsTest, HaveTheBitsOfTheReferenceForLargeSizes) {
  for (const Dtype dtype : kNarrowDtypes) {
    ExpectTheBitsOfTheReference(Mlp(dtype, {2056, 4232}, 520), {1, 40, 520});
    ExpectTheBitsOfTheReference(Mlp(dtype, {4104, 264}, 200), {200});
  }
}

// Infinities, NaNs, subnormals and the greatest numbers, in weights and inputs.
TEST_P(CudaMlpGradientsTest, HaveTheBitsOfTheReferenceForSpecialValues) {
  for (const Dtype dtype : kNarrowDtypes) {
    for (const uint32_t special_in : {50, 2000, 100000}) {
      ExpectTheBitsOfTheReference(Mlp(dtype, {72, 136}, 150, special_in), {1, 9, 40, 150});
    }
  }
}

// More than one part: the sums go through memory.
TEST_P(CudaMlpGradientsTest, HaveTheBitsOfTheReferenceForVeryManyTokens) {
  for (const Dtype dtype : kNarrowDtypes) {
    ExpectTheBitsOfTheReference(Mlp(dtype, {40, 72}, 20000), {8192, 8193, 20000});
  }
}

// However the tokens are cut into calls at multiples of 16.
TEST_P(CudaMlpGradientsTest, GoOnFromMemoryWithTheBitsOfOneCall) {
  for (const Dtype dtype : kNarrowDtypes) {
    constexpr int kCount = 513;
    const Mlp mlp(dtype, {200, 136}, kCount);
    const Expected expected(mlp, kCount);
    const Elements workspace = Workspace(mlp);
    for (const std::vector<int>& cuts :
         {std::vector<int>{16}, {512}, {64, 128}, {48, 304}, {16, 32, 48, 64, 80, 496}}) {
      Outputs outputs(mlp);
      std::string what = mlp.Describe() + " cut at";
      int first = 0;
      for (size_t i = 0; i <= cuts.size(); ++i) {
        const int end = i < cuts.size() ? cuts[i] : kCount;
        ASSERT_EQ(Launch(mlp, {first, end - first}, kAllOutputs,
                         i == 0 ? MlpSums::kBegin : MlpSums::kContinue, outputs, workspace,
                         GetParam(), nullptr),
                  cudaSuccess);
        if (i < cuts.size()) what += " " + std::to_string(end);
        first = end;
      }
      ExpectOutputs(mlp, kCount, kAllOutputs, outputs, expected, what);
    }
  }
}

TEST_P(CudaMlpGradientsTest, HaveTheSameBitsWhateverElseIsWanted) {
  constexpr int kCount = 100;
  for (const Dtype dtype : kNarrowDtypes) {
    const Mlp mlp(dtype, {136, 200}, kCount);
    const Expected expected(mlp, kCount);
    Elements workspace = Workspace(mlp);
    const Elements guards(kGuards);
    Outputs outputs(mlp);
    for (int bits = 1; bits < 16; ++bits) {
      const Wanted wanted{(bits & 1) != 0, (bits & 2) != 0, (bits & 4) != 0, (bits & 8) != 0};
      const std::string what = mlp.Describe() + " wanted:" + Describe(wanted);
      outputs.Reset();
      workspace.Reset();
      ASSERT_EQ(Launch(mlp, {0, kCount}, wanted, MlpSums::kBegin, outputs, workspace, GetParam(),
                       nullptr),
                cudaSuccess);
      ExpectOutputs(mlp, kCount, wanted, outputs, expected, what);
      const int64_t num_workspace =
          (wanted.down ? MlpGradientsWorkspaceBytes(mlp.weights(), kCount)
                       : MlpBackwardWorkspaceBytes(mlp.weights(), kCount)) /
          2;
      ExpectSame(dtype, workspace.get() + num_workspace, guards.get(), kGuards,
                 what + ": behind the workspace");
    }
  }
}

TEST_P(CudaMlpGradientsTest, BeginWithZeroWhateverIsInMemory) {
  constexpr int kNanByte = 0xFF;
  const Mlp mlp(Dtype::kBf16, {72, 136}, 33);
  const Expected expected(mlp, 33);
  Outputs outputs(mlp);
  Elements workspace = Workspace(mlp);
  outputs.Reset(kNanByte);
  workspace.Reset(kNanByte);
  ASSERT_EQ(
      Launch(mlp, {0, 33}, kAllOutputs, MlpSums::kBegin, outputs, workspace, GetParam(), nullptr),
      cudaSuccess);
  ExpectSame(mlp.dtype(), outputs.dx.get(), expected.dx.get(), expected.dx.count(), "dx");
  ExpectSame(outputs.gate.get(), expected.gate.get(), expected.gate.count(), "d_gate");
  ExpectSame(outputs.up.get(), expected.up.get(), expected.up.count(), "d_up");
  ExpectSame(outputs.down.get(), expected.down.get(), expected.down.count(), "d_down");
}

TEST_P(CudaMlpGradientsTest, AreZeroWithoutTokensOrStayAsTheyAre) {
  const Mlp mlp(Dtype::kFp16, {72, 136}, 16);
  const Elements workspace = Workspace(mlp);
  Outputs outputs(mlp);
  const Sums as_before(outputs.gate.count());
  const auto launch = [&](MlpSums sums) {
    EXPECT_EQ(Launch(mlp, {0, 0}, kAllOutputs, sums, outputs, workspace, GetParam(), nullptr),
              cudaSuccess);
  };
  launch(MlpSums::kContinue);
  for (const Sums* sums : {&outputs.gate, &outputs.up, &outputs.down}) {
    ExpectSame(sums->get(), as_before.get(), sums->count(), "from memory");
  }
  launch(MlpSums::kBegin);
  Sums zeros(mlp.matrix_count());
  zeros.Reset(0);
  for (const Sums* sums : {&outputs.gate, &outputs.up, &outputs.down}) {
    ExpectSame(sums->get(), zeros.get(), zeros.count(), "from zero");
    ExpectSame(sums->get() + zeros.count(), as_before.get(), kGuards, "behind the zeros");
  }
}

// Calls in a row that share a workspace and go on from each other's sums, in a stream and in a
// graph. What is read too early shows, because each round first spoils everything.
TEST_P(CudaMlpGradientsTest, KeepTheOrderOfTheStream) {
  constexpr int kCount = 300;
  const Mlp mlp(Dtype::kBf16, {520, 1032}, kCount);
  const Expected expected(mlp, kCount);
  const Elements workspace = Workspace(mlp);
  Outputs outputs(mlp);
  const Stream stream;
  ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
  const auto launch_all = [&] {
    for (const Sums* sums : {&outputs.gate, &outputs.up, &outputs.down}) {
      EXPECT_EQ(cudaMemsetAsync(sums->get(), 0xFF, static_cast<size_t>(mlp.matrix_count()) * 4,
                                stream.get()),
                cudaSuccess);
    }
    EXPECT_EQ(cudaMemsetAsync(workspace.get(), 0xFF, workspace.num_bytes(), stream.get()),
              cudaSuccess);
    for (const Tokens& tokens : {Tokens{0, 16}, Tokens{16, 128}, Tokens{144, 156}}) {
      EXPECT_EQ(
          Launch(mlp, tokens, kAllOutputs, tokens.first == 0 ? MlpSums::kBegin : MlpSums::kContinue,
                 outputs, workspace, GetParam(), stream.get()),
          cudaSuccess);
    }
  };

  for (int round = 0; round < 20; ++round) launch_all();
  ASSERT_EQ(cudaStreamSynchronize(stream.get()), cudaSuccess);
  ExpectOutputs(mlp, kCount, kAllOutputs, outputs, expected, "in a stream");

  cudaGraph_t graph = nullptr;
  cudaGraphExec_t executable = nullptr;
  ASSERT_EQ(cudaStreamBeginCapture(stream.get(), cudaStreamCaptureModeThreadLocal), cudaSuccess);
  launch_all();
  ASSERT_EQ(cudaStreamEndCapture(stream.get(), &graph), cudaSuccess);
  ASSERT_EQ(cudaGraphInstantiate(&executable, graph, 0), cudaSuccess);
  outputs.Reset();
  ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
  for (int replay = 0; replay < 3; ++replay) {
    EXPECT_EQ(cudaGraphLaunch(executable, stream.get()), cudaSuccess);
  }
  ASSERT_EQ(cudaStreamSynchronize(stream.get()), cudaSuccess);
  ExpectOutputs(mlp, kCount, kAllOutputs, outputs, expected, "in a graph");
  cudaGraphExecDestroy(executable);
  cudaGraphDestroy(graph);
}

// ---- Accuracy ----

// A [num_tokens][width] matrix on the host.
struct HostMatrix {
  std::vector<double> values;
  int width;

  double At(int token, int element) const {
    return values[static_cast<size_t>(token) * static_cast<size_t>(width) +
                  static_cast<size_t>(element)];
  }
};

HostMatrix ReadMatrix(Dtype dtype, const uint16_t* data, int num_tokens, int width) {
  std::vector<uint16_t> lanes(static_cast<size_t>(num_tokens) * static_cast<size_t>(width));
  EXPECT_EQ(cudaMemcpy(lanes.data(), data, lanes.size() * 2, cudaMemcpyDeviceToHost), cudaSuccess);
  HostMatrix matrix{{}, width};
  for (const uint16_t lane : lanes) matrix.values.push_back(Value(dtype, lane));
  return matrix;
}

// The sum over tokens of rows^T columns in float64. In each step of 16 the tensor cores cut off, of
// each of 17 terms, less than 2^-23 of the largest; none is larger than the sum of all magnitudes.
void ExpectNear(const std::vector<float>& actual, const HostMatrix& rows, const HostMatrix& columns,
                int num_tokens, const std::string& what) {
  const double tolerance = (num_tokens + 15) / 16 * 17 * 0x1p-23;
  for (int row = 0; row < rows.width; ++row) {
    for (int column = 0; column < columns.width; ++column) {
      double sum = 0, magnitudes = 0;
      for (int token = 0; token < num_tokens; ++token) {
        const double term = rows.At(token, row) * columns.At(token, column);
        sum += term;
        magnitudes += std::abs(term);
      }
      const auto at = static_cast<size_t>(row) * static_cast<size_t>(columns.width) +
                      static_cast<size_t>(column);
      ASSERT_NEAR(actual[at], sum, tolerance * magnitudes)
          << what << " at " << row << ", " << column;
    }
  }
}

TEST_P(CudaMlpGradientsTest, AreNearToFloat64) {
  constexpr int kCount = 513;
  for (const Dtype dtype : kNarrowDtypes) {
    const Mlp mlp(dtype, {72, 136}, kCount);
    const int hidden = mlp.hidden(), intermediate = mlp.intermediate();
    const Outputs outputs(mlp);
    const Elements workspace = Workspace(mlp);
    ASSERT_EQ(Launch(mlp, {0, kCount}, kAllOutputs, MlpSums::kBegin, outputs, workspace, GetParam(),
                     nullptr),
              cudaSuccess);
    const Expected expected(mlp, kCount);
    const auto read = [&](const uint16_t* data, int width) {
      return ReadMatrix(dtype, data, kCount, width);
    };
    const HostMatrix x = read(mlp.x(), hidden), dy = read(mlp.dy(), hidden);
    ExpectNear(outputs.gate.Read(), read(expected.hidden.de, intermediate), x, kCount, "d_gate");
    ExpectNear(outputs.up.Read(), read(expected.hidden.df, intermediate), x, kCount, "d_up");
    ExpectNear(outputs.down.Read(), dy, read(expected.hidden.h, intermediate), kCount, "d_down");
  }
}

// ---- Workspaces and refusals: no device is needed ----

template <class T>
T* Nowhere(uintptr_t address) {
  return std::bit_cast<T*>(address);
}

// For H = 64, I = 128 and two tokens.
CudaMlpWeights GoodMlp() {
  return {Dtype::kBf16, 64, 128, Nowhere<void>(0x1000), Nowhere<void>(0x2000)};
}
CudaMlpBackward GoodGradients() {
  CudaMlpBackward call{};
  call.x = Nowhere<void>(0x3000);
  call.dy = Nowhere<void>(0x4000);
  call.num_tokens = 2;
  call.workspace = Nowhere<void>(0x5000);
  call.workspace_bytes = 3 * 2 * 128 * 2;
  call.gradients.gate = Nowhere<float>(0x6000);
  call.gradients.up = Nowhere<float>(0x7000);
  call.gradients.down = Nowhere<float>(0x8000);
  return call;
}
cudaError_t StatusOf(const CudaMlpBackward& call) {
  return MlpBackwardCuda(GoodMlp(), call, MlpPath::kAuto, nullptr);
}

TEST(CudaMlpGradientArgumentsTest, SayHowManyBytesTheyNeed) {
  EXPECT_EQ(MlpGradientsWorkspaceBytes(GoodMlp(), 0), 0);
  EXPECT_EQ(MlpGradientsWorkspaceBytes(GoodMlp(), 3), 3 * 3 * 128 * 2);
  EXPECT_EQ(MlpGradientsWorkspaceBytes(GoodMlp(), kMaxMlpTokens), 3 * 8192 * 128 * 2);
}

TEST(CudaMlpGradientArgumentsTest, RefusesACallThatWantsNothing) {
  CudaMlpBackward call = GoodGradients();
  call.gradients.gate = call.gradients.up = call.gradients.down = nullptr;
  EXPECT_EQ(StatusOf(call), cudaErrorInvalidValue);
}

TEST(CudaMlpGradientArgumentsTest, RefusesMisalignedGradients) {
  for (const int64_t num_tokens : {0, 2}) {
    CudaMlpBackward faulty[3] = {GoodGradients(), GoodGradients(), GoodGradients()};
    faulty[0].gradients.gate = faulty[1].gradients.up = faulty[2].gradients.down =
        Nowhere<float>(0x9008);
    for (CudaMlpBackward& call : faulty) {
      call.num_tokens = num_tokens;
      EXPECT_EQ(StatusOf(call), cudaErrorInvalidValue) << num_tokens << " tokens";
    }
  }
}

TEST(CudaMlpGradientArgumentsTest, RefusesBadInputs) {
  for (void* const bad : {Nowhere<void>(0), Nowhere<void>(0x9002), Nowhere<void>(0x9008)}) {
    CudaMlpBackward faulty[3] = {GoodGradients(), GoodGradients(), GoodGradients()};
    faulty[0].x = faulty[1].dy = faulty[2].workspace = bad;
    for (const CudaMlpBackward& call : faulty) EXPECT_EQ(StatusOf(call), cudaErrorInvalidValue);
  }
  CudaMlpBackward misaligned = GoodGradients();
  misaligned.dx = Nowhere<void>(0x9008);
  EXPECT_EQ(StatusOf(misaligned), cudaErrorInvalidValue);
}

TEST(CudaMlpGradientArgumentsTest, RefusesAWorkspaceThatIsTooSmall) {
  CudaMlpBackward with_down = GoodGradients(), without_down = GoodGradients();
  --with_down.workspace_bytes;
  without_down.gradients.down = nullptr;
  without_down.workspace_bytes = 2 * 2 * 128 * 2 - 1;
  EXPECT_EQ(StatusOf(with_down), cudaErrorInvalidValue);
  EXPECT_EQ(StatusOf(without_down), cudaErrorInvalidValue);
}

TEST(CudaMlpGradientArgumentsTest, RefusesUnknownSums) {
  for (const int64_t num_tokens : {0, 2}) {
    for (const int sums : {-1, 2}) {
      CudaMlpBackward call = GoodGradients();
      call.num_tokens = num_tokens;
      call.gradients.sums = static_cast<MlpSums>(sums);
      EXPECT_EQ(StatusOf(call), cudaErrorInvalidValue) << sums;
    }
  }
}

TEST(CudaMlpGradientArgumentsTest, LeavesSumsInMemoryAloneWithoutTokens) {
  CudaMlpBackward call = GoodGradients();
  call.num_tokens = 0;
  call.x = call.dy = call.workspace = nullptr;
  call.workspace_bytes = 0;
  call.gradients.sums = MlpSums::kContinue;
  EXPECT_EQ(StatusOf(call), cudaSuccess);
}

// The refusals above are not due to anything else: this call gets as far as the device.
TEST(CudaMlpGradientArgumentsTest, AcceptsWhatTheOthersSpoil) {
  if (WhyNoCudaDevice().empty()) GTEST_SKIP() << "the addresses are made up";
  EXPECT_NE(StatusOf(GoodGradients()), cudaErrorInvalidValue);
  cudaGetLastError();
}

}  // namespace
}  // namespace swiglu::kernels
