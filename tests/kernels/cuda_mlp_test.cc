// SPDX-License-Identifier: Apache-2.0
//
// The MLP on CUDA against a plain reference: the bits, whatever the path, the sizes and the other
// tokens; what it must not touch; order in a stream; refused calls.
#include "swiglu/cuda_mlp.h"

#include <gtest/gtest.h>

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <numeric>
#include <string>
#include <vector>

#include "tests/kernels/cuda_mlp_problem.h"
#include "tests/kernels/cuda_mlp_reference.h"
#include "tests/kernels/cuda_runner.h"
#include "tests/kernels/patterns.h"

namespace swiglu::kernels {
namespace {

enum class Op { kForward, kBackward };
constexpr Op kMlpOps[] = {Op::kForward, Op::kBackward};

// The reference's y or dx of all tokens.
Elements ExpectedOutput(const Mlp& mlp, Op op) {
  const CudaMlpProblem problem = mlp.problem(mlp.max_tokens());
  const Elements scratch(ReferenceScratchElements(problem));
  Elements expected(int64_t{mlp.max_tokens()} * mlp.hidden());
  EXPECT_EQ(op == Op::kForward ? ReferenceForward(problem, scratch.get(), expected.get())
                               : ReferenceBackward(problem, scratch.get(), expected.get()),
            cudaSuccess);
  EXPECT_EQ(cudaDeviceSynchronize(), cudaSuccess);
  return expected;
}

std::string Describe(const Mlp& mlp, Op op) {
  return mlp.Describe() + (op == Op::kForward ? " forward" : " backward");
}

int64_t WorkspaceBytes(const Mlp& mlp, Op op, int num_tokens) {
  return op == Op::kForward ? MlpForwardWorkspaceBytes(mlp.weights(), num_tokens)
                            : MlpBackwardWorkspaceBytes(mlp.weights(), num_tokens);
}

// Enqueues one call.
cudaError_t Launch(const Mlp& mlp, Op op, const Tokens& tokens, uint16_t* out, void* workspace,
                   MlpPath path, cudaStream_t stream) {
  const int64_t bytes = WorkspaceBytes(mlp, op, tokens.count);
  const uint16_t *const x = mlp.x(tokens.first), *const dy = mlp.dy(tokens.first);
  return op == Op::kForward
             ? MlpForwardCuda(mlp.weights(), {x, out, tokens.count, workspace, bytes}, path, stream)
             : MlpBackwardCuda(mlp.weights(), {x, dy, out, tokens.count, workspace, bytes}, path,
                               stream);
}

// Computes on one path.
class CudaMlpTest : public testing::TestWithParam<MlpPath> {
 protected:
  void SetUp() override {
    const std::string missing = WhyNoMlpPath(GetParam());
    if (!missing.empty()) GTEST_SKIP() << missing;
  }

  // Computes the first tokens for each of `counts`, and expects the reference's bits and that
  // nothing else is written.
  void ExpectTheBitsOfTheReference(const Mlp& mlp, const std::vector<int>& counts) {
    for (const Op op : kMlpOps) {
      const Elements expected = ExpectedOutput(mlp, op), guards(kGuards);
      Elements out(expected.count() + kGuards);
      Elements workspace(WorkspaceBytes(mlp, op, mlp.max_tokens()) / 2 + kGuards);
      for (const int count : counts) {
        out.Reset();
        workspace.Reset();
        ASSERT_EQ(Launch(mlp, op, {0, count}, out.get(), workspace.get(), GetParam(), nullptr),
                  cudaSuccess);
        const int64_t num_elements = int64_t{count} * mlp.hidden();
        const int64_t num_workspace = WorkspaceBytes(mlp, op, count) / 2;
        const std::string what = Describe(mlp, op) + " M=" + std::to_string(count);
        ExpectSame(mlp.dtype(), out.get(), expected.get(), num_elements, what);
        ExpectSame(mlp.dtype(), out.get() + num_elements, guards.get(), kGuards, what + " guards");
        ExpectSame(mlp.dtype(), workspace.get() + num_workspace, guards.get(), kGuards,
                   what + " guards of the workspace");
        if (HasFailure()) return;
      }
    }
  }
};

INSTANTIATE_TEST_SUITE_P(Cuda, CudaMlpTest,
                         testing::Values(MlpPath::kAuto, MlpPath::kMma, MlpPath::kWgmma),
                         NameOfMlpPath);

// Every count up to 80, and around the edges of larger tiles.
std::vector<int> ManyCounts() {
  std::vector<int> counts(80);
  std::iota(counts.begin(), counts.end(), 1);
  for (const int count : {95,  96,  97,  100, 127, 128, 129, 150, 175, 176, 177, 191, 192,
                          193, 200, 223, 224, 225, 255, 256, 257, 300, 319, 320, 321, 350,
                          383, 384, 385, 400, 447, 448, 449, 480, 511, 512, 513}) {
    counts.push_back(count);
  }
  return counts;
}

TEST_P(CudaMlpTest, HasTheBitsOfTheReferenceForAnyNumberOfTokens) {
  for (const Dtype dtype : kNarrowDtypes) {
    ExpectTheBitsOfTheReference(Mlp(dtype, {264, 520}, 513), ManyCounts());
  }
}

TEST_P(CudaMlpTest, HasTheBitsOfTheReferenceAtTheEdgesOfSizes) {
  for (const Dtype dtype : kNarrowDtypes) {
    for (const int hidden : {8, 16, 24, 40, 56, 64, 72, 120, 128, 136, 200}) {
      for (const int intermediate : {8, 16, 24, 56, 64, 72, 104, 136, 264}) {
        ExpectTheBitsOfTheReference(Mlp(dtype, {hidden, intermediate}, 300), {3, 70, 300});
        if (HasFailure()) return;
      }
    }
  }
}

// So many outputs that each multiprocessor computes several tiles. cuda_mlp_tiles_test.cc forces
// each tile.
TEST_P(CudaMlpTest, HasTheBitsOfTheReferenceForLargeSizes) {
  for (const Dtype dtype : kNarrowDtypes) {
    ExpectTheBitsOfTheReference(Mlp(dtype, {264, 11008}, 2049),
                                {1, 8, 16, 17, 64, 65, 128, 200, 256, 512, 2049});
    ExpectTheBitsOfTheReference(Mlp(dtype, {4096, 1096}, 2049),
                                {1, 8, 16, 17, 64, 65, 128, 200, 256, 512, 2049});
    // Here tiles of gate and up are finished while the next ones are computed.
    ExpectTheBitsOfTheReference(Mlp(dtype, {1032, 11008}, 1100), {250, 256, 500, 512, 1024, 1100});
  }
}

// Infinities, NaNs, subnormals and the greatest numbers, in weights and inputs.
TEST_P(CudaMlpTest, HasTheBitsOfTheReferenceForSpecialValues) {
  for (const Dtype dtype : kNarrowDtypes) {
    for (const uint32_t special_in : {3, 50, 2000}) {
      ExpectTheBitsOfTheReference(Mlp(dtype, {72, 136}, 150, special_in), {1, 9, 40, 70, 150});
      ExpectTheBitsOfTheReference(Mlp(dtype, {520, 264}, 300, special_in), {7, 64, 300});
    }
  }
}

// More than one part.
TEST_P(CudaMlpTest, HasTheBitsOfTheReferenceForVeryManyTokens) {
  ExpectTheBitsOfTheReference(Mlp(Dtype::kBf16, {40, 72}, 20000), {8192, 8193, 20000});
}

TEST_P(CudaMlpTest, GivesATokenTheSameBitsAmongAnyOthers) {
  for (const Dtype dtype : kNarrowDtypes) {
    const Mlp mlp(dtype, {1000, 2056}, 513);
    for (const Op op : kMlpOps) {
      const Elements expected = ExpectedOutput(mlp, op);
      const Elements workspace(WorkspaceBytes(mlp, op, mlp.max_tokens()) / 2);
      for (const Tokens tokens : {Tokens{512, 1}, Tokens{100, 1}, Tokens{13, 8}, Tokens{99, 33},
                                  Tokens{1, 64}, Tokens{77, 200}, Tokens{1, 512}}) {
        const int64_t num_elements = int64_t{tokens.count} * mlp.hidden();
        const Elements out(num_elements);
        ASSERT_EQ(Launch(mlp, op, tokens, out.get(), workspace.get(), GetParam(), nullptr),
                  cudaSuccess);
        ExpectSame(mlp.dtype(), out.get(), expected.get() + int64_t{tokens.first} * mlp.hidden(),
                   num_elements, Describe(mlp, op) + " from " + std::to_string(tokens.first));
      }
    }
  }
}

// Layers in a row: each reads what the one before wrote, and all use the same workspace.
class CudaMlpOrderTest : public CudaMlpTest {
 protected:
  static constexpr int kLayers = 3;

  // Enqueues all layers, from x by way of `buffers` to the last of them.
  void LaunchLayers(const Mlp& mlp, const std::vector<Elements>& buffers, int num_tokens,
                    const Elements& workspace, cudaStream_t stream) {
    const int64_t bytes = MlpForwardWorkspaceBytes(mlp.weights(), num_tokens);
    const uint16_t* x = mlp.x();
    for (const Elements& y : buffers) {
      EXPECT_EQ(MlpForwardCuda(mlp.weights(), {x, y.get(), num_tokens, workspace.get(), bytes},
                               GetParam(), stream),
                cudaSuccess);
      x = y.get();
    }
  }

  // Layer by layer on the default stream, each one done before the next begins.
  std::vector<uint16_t> OneAfterTheOther(const Mlp& mlp, int num_tokens) {
    const Elements workspace(WorkspaceBytes(mlp, Op::kForward, num_tokens) / 2);
    const int64_t bytes = MlpForwardWorkspaceBytes(mlp.weights(), num_tokens);
    std::array<Elements, 2> y = {Elements(int64_t{num_tokens} * mlp.hidden()),
                                 Elements(int64_t{num_tokens} * mlp.hidden())};
    const uint16_t* x = mlp.x();
    for (int layer = 0; layer < kLayers; ++layer) {
      uint16_t* const out = y[static_cast<size_t>(layer % 2)].get();
      EXPECT_EQ(MlpForwardCuda(mlp.weights(), {x, out, num_tokens, workspace.get(), bytes},
                               GetParam(), nullptr),
                cudaSuccess);
      EXPECT_EQ(cudaDeviceSynchronize(), cudaSuccess);
      x = out;
    }
    return y[(kLayers - 1) % 2].Read();
  }
};

INSTANTIATE_TEST_SUITE_P(Cuda, CudaMlpOrderTest,
                         testing::Values(MlpPath::kAuto, MlpPath::kMma, MlpPath::kWgmma),
                         NameOfMlpPath);

TEST_P(CudaMlpOrderTest, KeepsTheOrderOfTheStream) {
  const Mlp mlp(Dtype::kBf16, {1024, 2048}, 300);
  const Stream stream;
  for (const int num_tokens : {1, 16, 60, 300}) {
    const std::vector<uint16_t> expected = OneAfterTheOther(mlp, num_tokens);
    const Elements workspace(WorkspaceBytes(mlp, Op::kForward, num_tokens) / 2);
    const std::vector<Elements> buffers = [&] {
      std::vector<Elements> made;
      for (int layer = 0; layer < kLayers; ++layer) {
        made.emplace_back(int64_t{num_tokens} * mlp.hidden());
      }
      return made;
    }();
    ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
    for (int round = 0; round < 20; ++round) {
      // What is read too early shows.
      for (const Elements& y : buffers) {
        EXPECT_EQ(cudaMemsetAsync(y.get(), 0x55, y.num_bytes(), stream.get()), cudaSuccess);
      }
      EXPECT_EQ(cudaMemsetAsync(workspace.get(), 0x55, workspace.num_bytes(), stream.get()),
                cudaSuccess);
      LaunchLayers(mlp, buffers, num_tokens, workspace, stream.get());
    }
    ASSERT_EQ(cudaStreamSynchronize(stream.get()), cudaSuccess);
    EXPECT_TRUE(buffers.back().Read() == expected) << num_tokens << " tokens";
  }
}

TEST_P(CudaMlpOrderTest, RunsInAGraph) {
  const Mlp mlp(Dtype::kFp16, {520, 1000}, 65);
  const Stream stream;
  for (const Op op : kMlpOps) {
    for (const int num_tokens : {1, 65}) {
      const Elements expected = ExpectedOutput(mlp, op);
      const Elements workspace(WorkspaceBytes(mlp, op, num_tokens) / 2);
      const int64_t num_elements = int64_t{num_tokens} * mlp.hidden();
      Elements out(num_elements);
      ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
      cudaGraph_t graph = nullptr;
      cudaGraphExec_t executable = nullptr;
      ASSERT_EQ(cudaStreamBeginCapture(stream.get(), cudaStreamCaptureModeThreadLocal),
                cudaSuccess);
      EXPECT_EQ(
          Launch(mlp, op, {0, num_tokens}, out.get(), workspace.get(), GetParam(), stream.get()),
          cudaSuccess);
      ASSERT_EQ(cudaStreamEndCapture(stream.get(), &graph), cudaSuccess);
      ASSERT_EQ(cudaGraphInstantiate(&executable, graph, 0), cudaSuccess);
      for (int replay = 0; replay < 3; ++replay) {
        out.Reset();
        ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
        ASSERT_EQ(cudaGraphLaunch(executable, stream.get()), cudaSuccess);
        ASSERT_EQ(cudaStreamSynchronize(stream.get()), cudaSuccess);
        ExpectSame(mlp.dtype(), out.get(), expected.get(), num_elements, Describe(mlp, op));
      }
      cudaGraphExecDestroy(executable);
      cudaGraphDestroy(graph);
    }
  }
}

// ---- The copy of gate and up ----

TEST(CudaMlpWeightsTest, InterleavesRowsFromHostAndDevice) {
  if (const std::string missing = WhyNoCudaDevice(); !missing.empty()) GTEST_SKIP() << missing;
  constexpr int kHidden = 16, kIntermediate = 24;
  std::vector<uint16_t> gate(kHidden * kIntermediate), up(gate.size());
  std::iota(gate.begin(), gate.end(), uint16_t{0});
  std::iota(up.begin(), up.end(), uint16_t{1000});
  const Elements d_up(static_cast<int64_t>(up.size()));
  ASSERT_EQ(cudaMemcpy(d_up.get(), up.data(), d_up.num_bytes(), cudaMemcpyHostToDevice),
            cudaSuccess);
  const Elements gate_up(2 * d_up.count());
  const auto copy = [&](const MlpRows& rows) {
    EXPECT_EQ(CopyGateUpCuda(rows, gate_up.get(), nullptr), cudaSuccess);
  };
  copy({MlpMatrix::kGate, kHidden, 8, 16, gate.data() + 8 * kHidden});
  copy({MlpMatrix::kGate, kHidden, 0, 8, gate.data()});
  copy({MlpMatrix::kUp, kHidden, 0, 24, d_up.get()});
  ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
  const std::vector<uint16_t> interleaved = gate_up.Read();
  for (int row = 0; row < kIntermediate; ++row) {
    for (int k = 0; k < kHidden; ++k) {
      const auto at = static_cast<size_t>((row / 8 * 16 + row % 8) * kHidden + k);
      EXPECT_EQ(interleaved[at], gate[static_cast<size_t>(row * kHidden + k)]) << row << " " << k;
      EXPECT_EQ(interleaved[at + 8 * kHidden], up[static_cast<size_t>(row * kHidden + k)]);
    }
  }
}

TEST(CudaMlpWeightsTest, RefusesBadRows) {
  const MlpRows good{MlpMatrix::kUp, 16, 8, 0, nullptr};
  const auto status = [](const MlpRows& rows, uintptr_t to = 0x1000) {
    return CopyGateUpCuda(rows, std::bit_cast<void*>(to), nullptr);
  };
  EXPECT_EQ(status(good), cudaSuccess);
  for (const int64_t number : {int64_t{-8}, int64_t{4}, INT64_MIN + 1}) {
    MlpRows first = good, count = good, hidden = good;
    first.first_row = count.num_rows = hidden.hidden = number;
    EXPECT_EQ(status(first), cudaErrorInvalidValue) << number;
    EXPECT_EQ(status(count), cudaErrorInvalidValue) << number;
    EXPECT_EQ(status(hidden), cudaErrorInvalidValue) << number;
  }
  MlpRows null = good;
  null.num_rows = 8;
  EXPECT_EQ(status(null), cudaErrorInvalidValue);
  null.data = std::bit_cast<const void*>(uintptr_t{0x1000});
  EXPECT_EQ(status(null, 0), cudaErrorInvalidValue);
}

// ---- Workspaces and refusals: no device is needed ----

void* Somewhere(uintptr_t address) { return std::bit_cast<void*>(address); }

CudaMlpWeights GoodWeights() {
  return {Dtype::kBf16, 64, 128, Somewhere(0x1000), Somewhere(0x2000)};
}
CudaMlpForward GoodForward() {
  return {Somewhere(0x3000), Somewhere(0x4000), 2, Somewhere(0x5000), 2 * 128 * 2};
}
CudaMlpBackward GoodBackward() {
  return {Somewhere(0x3000), Somewhere(0x4000), Somewhere(0x6000), 2,
          Somewhere(0x5000), 2 * 2 * 128 * 2};
}

cudaError_t Status(const CudaMlpWeights& weights, MlpPath path = MlpPath::kAuto) {
  const cudaError_t forward = MlpForwardCuda(weights, GoodForward(), path, nullptr);
  EXPECT_EQ(MlpBackwardCuda(weights, GoodBackward(), path, nullptr), forward);
  return forward;
}
cudaError_t Status(const CudaMlpForward& call) {
  return MlpForwardCuda(GoodWeights(), call, MlpPath::kAuto, nullptr);
}
cudaError_t Status(const CudaMlpBackward& call) {
  return MlpBackwardCuda(GoodWeights(), call, MlpPath::kAuto, nullptr);
}

TEST(CudaMlpArgumentsTest, SaysHowManyBytesItNeeds) {
  const CudaMlpWeights weights = GoodWeights();
  EXPECT_EQ(MlpForwardWorkspaceBytes(weights, 0), 0);
  EXPECT_EQ(MlpForwardWorkspaceBytes(weights, 3), 3 * 128 * 2);
  EXPECT_EQ(MlpBackwardWorkspaceBytes(weights, 3), 2 * 3 * 128 * 2);
  EXPECT_EQ(MlpForwardWorkspaceBytes(weights, 8192), 8192 * 128 * 2);
  EXPECT_EQ(MlpForwardWorkspaceBytes(weights, kMaxMlpTokens), 8192 * 128 * 2);
  EXPECT_EQ(MlpBackwardWorkspaceBytes(weights, kMaxMlpTokens), 2 * 8192 * 128 * 2);
}

TEST(CudaMlpArgumentsTest, RefusesFp32AndUnknownDtypes) {
  for (const Dtype dtype : {Dtype::kFp32, static_cast<Dtype>(3), static_cast<Dtype>(-1)}) {
    CudaMlpWeights weights = GoodWeights();
    weights.dtype = dtype;
    EXPECT_EQ(Status(weights), cudaErrorInvalidValue);
  }
}

TEST(CudaMlpArgumentsTest, RefusesSizesThatAreNoMultiplesOfEight) {
  for (const int64_t size : {int64_t{0}, int64_t{-8}, int64_t{4}, int64_t{12}, kMaxMlpSize + 8}) {
    CudaMlpWeights hidden = GoodWeights(), intermediate = GoodWeights();
    hidden.hidden = intermediate.intermediate = size;
    EXPECT_EQ(Status(hidden), cudaErrorInvalidValue) << size;
    EXPECT_EQ(Status(intermediate), cudaErrorInvalidValue) << size;
  }
}

TEST(CudaMlpArgumentsTest, RefusesBadPointersToWeights) {
  for (const void* bad :
       {static_cast<const void*>(nullptr), std::bit_cast<const void*>(uintptr_t{0x1008})}) {
    CudaMlpWeights gate_up = GoodWeights(), down = GoodWeights();
    gate_up.gate_up = down.down = bad;
    EXPECT_EQ(Status(gate_up), cudaErrorInvalidValue);
    EXPECT_EQ(Status(down), cudaErrorInvalidValue);
  }
}

TEST(CudaMlpArgumentsTest, RefusesBadCounts) {
  for (const int64_t count : {int64_t{-1}, kMaxMlpTokens + 1, INT64_MIN, INT64_MAX}) {
    CudaMlpForward forward = GoodForward();
    CudaMlpBackward backward = GoodBackward();
    forward.num_tokens = backward.num_tokens = count;
    EXPECT_EQ(Status(forward), cudaErrorInvalidValue);
    EXPECT_EQ(Status(backward), cudaErrorInvalidValue);
  }
}

TEST(CudaMlpArgumentsTest, RefusesBadTensors) {
  for (void* const bad : {static_cast<void*>(nullptr), Somewhere(0x7002), Somewhere(0x7008)}) {
    CudaMlpForward no_x = GoodForward(), no_y = GoodForward(), no_workspace = GoodForward();
    no_x.x = no_y.y = no_workspace.workspace = bad;
    for (const CudaMlpForward& call : {no_x, no_y, no_workspace}) {
      EXPECT_EQ(Status(call), cudaErrorInvalidValue);
    }
    CudaMlpBackward faulty[4] = {GoodBackward(), GoodBackward(), GoodBackward(), GoodBackward()};
    faulty[0].x = faulty[1].dy = faulty[2].dx = faulty[3].workspace = bad;
    for (const CudaMlpBackward& call : faulty) EXPECT_EQ(Status(call), cudaErrorInvalidValue);
  }
}

TEST(CudaMlpArgumentsTest, RefusesAWorkspaceThatIsTooSmall) {
  CudaMlpForward forward = GoodForward();
  CudaMlpBackward backward = GoodBackward();
  --forward.workspace_bytes;
  --backward.workspace_bytes;
  EXPECT_EQ(Status(forward), cudaErrorInvalidValue);
  EXPECT_EQ(Status(backward), cudaErrorInvalidValue);
}

TEST(CudaMlpArgumentsTest, RefusesAnUnknownPath) {
  EXPECT_EQ(Status(GoodWeights(), static_cast<MlpPath>(3)), cudaErrorInvalidValue);
  EXPECT_EQ(Status(GoodWeights(), static_cast<MlpPath>(-1)), cudaErrorInvalidValue);
}

TEST(CudaMlpArgumentsTest, LaunchesNothingWithoutTokens) {
  EXPECT_EQ(Status(CudaMlpForward{nullptr, nullptr, 0, nullptr, 0}), cudaSuccess);
  EXPECT_EQ(Status(CudaMlpBackward{nullptr, nullptr, nullptr, 0, nullptr, 0}), cudaSuccess);
}

TEST(CudaMlpArgumentsTest, RefusesWgmmaOnOtherGpusThanHopper) {
  if (const std::string missing = WhyNoCudaDevice(); !missing.empty()) GTEST_SKIP() << missing;
  int major = 0;
  ASSERT_EQ(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, 0), cudaSuccess);
  if (major == 9) GTEST_SKIP() << "this is a Hopper GPU";
  EXPECT_EQ(Status(GoodWeights(), MlpPath::kWgmma), cudaErrorNotSupported);
  EXPECT_EQ(cudaGetLastError(), cudaSuccess);
}

}  // namespace
}  // namespace swiglu::kernels
