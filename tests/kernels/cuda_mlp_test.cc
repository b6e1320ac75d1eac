// SPDX-License-Identifier: Apache-2.0
//
// The MLP on CUDA against a plain reference: the bits, whatever the path, the sizes and the other
// tokens; what it must not touch; order in a stream; refused calls.
#include "swiglu/cuda_mlp.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <numeric>
#include <string>
#include <vector>

#include "tests/kernels/cuda_mlp_reference.h"
#include "tests/kernels/cuda_runner.h"
#include "tests/kernels/patterns.h"

namespace swiglu::kernels {
namespace {

enum class Op { kForward, kBackward };
constexpr Op kMlpOps[] = {Op::kForward, Op::kBackward};

struct Sizes {
  int hidden, intermediate;
};

// 16-bit elements in device memory, every byte of them 0x55 at first.
class Elements {
 public:
  explicit Elements(int64_t count)
      : count_(count), data_(AllocateOnDevice(std::max<size_t>(num_bytes(), 1))) {
    EXPECT_NE(data_, nullptr) << count << " elements";
    Reset();
  }
  void Reset(int byte = 0x55) { EXPECT_EQ(cudaMemset(get(), byte, num_bytes()), cudaSuccess); }
  uint16_t* get() const { return reinterpret_cast<uint16_t*>(data_.get()); }
  int64_t count() const { return count_; }
  size_t num_bytes() const { return static_cast<size_t>(count_) * 2; }
  std::vector<uint16_t> Read() const {
    std::vector<uint16_t> read(static_cast<size_t>(count_));
    EXPECT_EQ(cudaMemcpy(read.data(), get(), num_bytes(), cudaMemcpyDeviceToHost), cudaSuccess);
    return read;
  }

 private:
  int64_t count_;
  std::shared_ptr<std::byte> data_;
};

// Weights and inputs of an MLP for up to `max_tokens` tokens.
class Mlp {
 public:
  Mlp(Dtype dtype, Sizes sizes, int max_tokens, uint32_t special_in = 0)
      : dtype_(dtype),
        sizes_(sizes),
        max_tokens_(max_tokens),
        gate_(matrix_count()),
        up_(matrix_count()),
        down_(matrix_count()),
        gate_up_(2 * matrix_count()),
        x_(int64_t{max_tokens} * sizes.hidden),
        dy_(x_.count()) {
    const float by_hidden = 1.0f / std::sqrt(static_cast<float>(sizes.hidden));
    const float by_intermediate = 1.0f / std::sqrt(static_cast<float>(sizes.intermediate));
    Fill(gate_, {1, 4 * by_hidden, special_in});
    Fill(up_, {2, 2 * by_hidden, special_in});
    Fill(down_, {3, 2 * by_intermediate, special_in});
    Fill(x_, {4, 1.5f, 4 * special_in});
    Fill(dy_, {5, 1.5f, 4 * special_in});
    Copy({MlpMatrix::kGate, sizes.hidden, 0, sizes.intermediate, gate_.get()});
    Copy({MlpMatrix::kUp, sizes.hidden, 0, sizes.intermediate, up_.get()});
    EXPECT_EQ(cudaDeviceSynchronize(), cudaSuccess);
  }

  Dtype dtype() const { return dtype_; }
  int hidden() const { return sizes_.hidden; }
  int max_tokens() const { return max_tokens_; }
  const uint16_t* x(int token = 0) const { return x_.get() + int64_t{token} * hidden(); }
  const uint16_t* dy(int token = 0) const { return dy_.get() + int64_t{token} * hidden(); }
  CudaMlpWeights weights() const {
    return {dtype_, sizes_.hidden, sizes_.intermediate, gate_up_.get(), down_.get()};
  }

  // The reference's y or dx of all tokens.
  Elements Expected(Op op) const {
    const CudaMlpProblem problem{dtype_,      sizes_.hidden, sizes_.intermediate,
                                 max_tokens_, gate_.get(),   up_.get(),
                                 down_.get(), x_.get(),      dy_.get()};
    const Elements scratch(ReferenceScratchElements(problem));
    Elements expected(x_.count());
    EXPECT_EQ(op == Op::kForward ? ReferenceForward(problem, scratch.get(), expected.get())
                                 : ReferenceBackward(problem, scratch.get(), expected.get()),
              cudaSuccess);
    EXPECT_EQ(cudaDeviceSynchronize(), cudaSuccess);
    return expected;
  }

  std::string Describe(Op op) const {
    return std::string(Name(dtype_)) + (op == Op::kForward ? " forward" : " backward") +
           " H=" + std::to_string(sizes_.hidden) + " I=" + std::to_string(sizes_.intermediate);
  }

 private:
  int64_t matrix_count() const { return int64_t{sizes_.hidden} * sizes_.intermediate; }
  void Fill(const Elements& to, const MlpNumbers& numbers) const {
    EXPECT_EQ(FillMlp(dtype_, numbers, to.get(), to.count()), cudaSuccess);
  }
  void Copy(const MlpRows& rows) const {
    EXPECT_EQ(CopyGateUpCuda(rows, gate_up_.get(), nullptr), cudaSuccess);
  }

  const Dtype dtype_;
  const Sizes sizes_;
  const int max_tokens_;
  const Elements gate_, up_, down_, gate_up_, x_, dy_;
};

// Consecutive tokens of an MLP.
struct Tokens {
  int first, count;
};

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

// Elements past the end of an output or a workspace that must stay as they are.
constexpr int64_t kGuards = 4096;

void ExpectSame(const Mlp& mlp, const uint16_t* actual, const uint16_t* expected, int64_t count,
                const std::string& what) {
  MlpDifferences differences;
  ASSERT_EQ(CompareMlp(mlp.dtype(), actual, expected, count, differences), cudaSuccess) << what;
  EXPECT_EQ(differences.num_wrong, 0u) << what << ": " << differences.num_wrong << " of " << count
                                       << " elements, one of them at " << differences.first;
}

// Computes on one path.
class CudaMlpTest : public testing::TestWithParam<MlpPath> {
 protected:
  void SetUp() override {
    const std::string missing = WhyNoCudaDevice();
    if (!missing.empty()) GTEST_SKIP() << missing;
    int major = 0;
    ASSERT_EQ(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, 0), cudaSuccess);
    if (GetParam() == MlpPath::kWgmma && major != 9) GTEST_SKIP() << "no Hopper GPU";
  }

  // Computes the first tokens for each of `counts`, and expects the reference's bits and that
  // nothing else is written.
  void ExpectTheBitsOfTheReference(const Mlp& mlp, const std::vector<int>& counts) {
    for (const Op op : kMlpOps) {
      const Elements expected = mlp.Expected(op), guards(kGuards);
      Elements out(expected.count() + kGuards);
      Elements workspace(WorkspaceBytes(mlp, op, mlp.max_tokens()) / 2 + kGuards);
      for (const int count : counts) {
        out.Reset();
        workspace.Reset();
        ASSERT_EQ(Launch(mlp, op, {0, count}, out.get(), workspace.get(), GetParam(), nullptr),
                  cudaSuccess);
        const int64_t num_elements = int64_t{count} * mlp.hidden();
        const int64_t num_workspace = WorkspaceBytes(mlp, op, count) / 2;
        const std::string what = mlp.Describe(op) + " M=" + std::to_string(count);
        ExpectSame(mlp, out.get(), expected.get(), num_elements, what);
        ExpectSame(mlp, out.get() + num_elements, guards.get(), kGuards, what + " guards");
        ExpectSame(mlp, workspace.get() + num_workspace, guards.get(), kGuards,
                   what + " guards of the workspace");
        if (HasFailure()) return;
      }
    }
  }
};

std::string NameOfPath(const testing::TestParamInfo<MlpPath>& info) {
  return info.param == MlpPath::kAuto ? "Auto" : info.param == MlpPath::kMma ? "Mma" : "Wgmma";
}
INSTANTIATE_TEST_SUITE_P(Cuda, CudaMlpTest,
                         testing::Values(MlpPath::kAuto, MlpPath::kMma, MlpPath::kWgmma),
                         NameOfPath);

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

// So many outputs that each tile is chosen somewhere, and each multiprocessor computes several.
TEST_P(CudaMlpTest, HasTheBitsOfTheReferenceForLargeSizes) {
  for (const Dtype dtype : kNarrowDtypes) {
    ExpectTheBitsOfTheReference(Mlp(dtype, {264, 11008}, 2049),
                                {1, 8, 16, 17, 64, 65, 128, 200, 256, 512, 2049});
    ExpectTheBitsOfTheReference(Mlp(dtype, {4096, 1096}, 2049),
                                {1, 8, 16, 17, 64, 65, 128, 200, 256, 512, 2049});
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
      const Elements expected = mlp.Expected(op);
      const Elements workspace(WorkspaceBytes(mlp, op, mlp.max_tokens()) / 2);
      for (const Tokens tokens : {Tokens{512, 1}, Tokens{100, 1}, Tokens{13, 8}, Tokens{99, 33},
                                  Tokens{1, 64}, Tokens{77, 200}, Tokens{1, 512}}) {
        const int64_t num_elements = int64_t{tokens.count} * mlp.hidden();
        const Elements out(num_elements);
        ASSERT_EQ(Launch(mlp, op, tokens, out.get(), workspace.get(), GetParam(), nullptr),
                  cudaSuccess);
        ExpectSame(mlp, out.get(), expected.get() + int64_t{tokens.first} * mlp.hidden(),
                   num_elements, mlp.Describe(op) + " from " + std::to_string(tokens.first));
      }
    }
  }
}

class Stream {
 public:
  Stream() { EXPECT_EQ(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), cudaSuccess); }
  ~Stream() { EXPECT_EQ(cudaStreamDestroy(stream_), cudaSuccess); }
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;
  cudaStream_t get() const { return stream_; }

 private:
  cudaStream_t stream_ = nullptr;
};

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
                         NameOfPath);

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
      const Elements expected = mlp.Expected(op);
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
        ExpectSame(mlp, out.get(), expected.get(), num_elements, mlp.Describe(op));
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
