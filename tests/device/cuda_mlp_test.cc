// SPDX-License-Identifier: Apache-2.0
//
// Batches of MLPs on a CUDA lane give what the kernels give for the tokens in one piece, wherever
// the tensors lie. Needs a device.
#include "swiglu/cuda_mlp.h"

#include <cuda_runtime_api.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <memory>
#include <random>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "server/device/cuda_lane.h"
#include "server/device/cuda_weights.h"
#include "server/gpu/cuda_probe.h"
#include "server/weights/mlp_files.h"
#include "tests/client/temp_folder.h"
#include "tests/weights/model_writer.h"

namespace swiglu::server {
namespace {

constexpr int64_t kMlpHidden = 72;
constexpr int64_t kIntermediate = 136;
constexpr int64_t kMlpRowBytes = kMlpHidden * 2;
constexpr int64_t kMaxTokens = 600;

// BF16 numbers between -1 and 1.
std::string RandomRows(int64_t num_values, uint32_t seed) {
  std::mt19937 random(seed);
  std::string bytes(static_cast<size_t>(num_values) * 2, '\0');
  for (size_t i = 0; i < bytes.size(); i += 2) {
    const auto value = static_cast<uint16_t>((random() & 0x80FF) | (0x3E00 + (random() & 0x100)));
    std::memcpy(&bytes[i], &value, sizeof(value));
  }
  return bytes;
}

class CudaMlpTest : public testing::TestWithParam<Op> {
 protected:
  void SetUp() override {
    const auto devices = FindCudaDevices();
    if (!devices.ok()) GTEST_SKIP() << devices.status().message();
    ordinal_ = devices->front().ordinal;
    const std::string path = folder_.Write(
        "m.safetensors",
        ModelFile({{"gate_proj.weight", "BF16", {kIntermediate, kMlpHidden}, Matrix(1)},
                   {"up_proj.weight", "BF16", {kIntermediate, kMlpHidden}, Matrix(2)},
                   {"down_proj.weight", "BF16", {kMlpHidden, kIntermediate}, Matrix(3)}}));
    const auto files = MlpFiles::Open({"m", path, {}});
    ASSERT_TRUE(files.ok()) << files.status();
    CudaWeightsLoader loader({ordinal_}, 1, kMaxTokens);
    auto weights = loader.Load(**files, 0, nullptr, [](int64_t) { return absl::OkStatus(); });
    ASSERT_TRUE(weights.ok()) << weights.status();
    weights_ = *std::move(weights);
    auto lane = CudaLane::CreateForMlps(ordinal_, {{kMlpHidden, kIntermediate, kMaxTokens}});
    ASSERT_TRUE(lane.ok()) << lane.status();
    lane_ = *std::move(lane);
    model_ = MakeMlpModel({.op = GetParam(),
                           .mlp = "m",
                           .hidden = kMlpHidden,
                           .intermediate = kIntermediate,
                           .max_batch_rows = 64});
  }

  static std::string Matrix(uint32_t seed) { return RandomRows(kMlpHidden * kIntermediate, seed); }

  // Memory of the device, or pinned memory, with `size_bytes` at an offset of `shift` bytes.
  std::byte* Allocate(bool on_device, size_t size_bytes, size_t shift = 0) {
    if (on_device) {
      auto memory = MakeCudaMemory(ordinal_, size_bytes + shift);
      EXPECT_TRUE(memory.ok()) << memory.status();
      device_memory_.push_back(*std::move(memory));
      return device_memory_.back().get() + shift;
    }
    auto memory = MakeCudaHostMemory(ordinal_, size_bytes + shift);
    EXPECT_TRUE(memory.ok()) << memory.status();
    host_memory_.push_back(*std::move(memory));
    return host_memory_.back().get() + shift;
  }

  // What the kernel computes from whole tensors.
  std::string Expected(const std::vector<std::string>& inputs) {
    const auto num_tokens = static_cast<int64_t>(inputs[0].size()) / kMlpRowBytes;
    const swiglu::CudaMlpWeights weights = static_cast<const CudaWeights&>(*weights_).On(ordinal_);
    const int64_t workspace_bytes = swiglu::MlpBackwardWorkspaceBytes(weights, num_tokens);
    std::byte* const workspace = Allocate(true, static_cast<size_t>(workspace_bytes));
    std::vector<std::byte*> d_inputs;
    for (const std::string& input : inputs) {
      d_inputs.push_back(Allocate(true, input.size()));
      cudaMemcpy(d_inputs.back(), input.data(), input.size(), cudaMemcpyDefault);
    }
    std::byte* const d_output = Allocate(true, inputs[0].size());
    const cudaError_t error =
        GetParam() == Op::kMlpForward
            ? swiglu::MlpForwardCuda(
                  weights, {d_inputs[0], d_output, num_tokens, workspace, workspace_bytes},
                  swiglu::MlpPath::kAuto, nullptr)
            : swiglu::MlpBackwardCuda(
                  weights,
                  {d_inputs[0], d_inputs[1], d_output, num_tokens, workspace, workspace_bytes},
                  swiglu::MlpPath::kAuto, nullptr);
    EXPECT_EQ(error, cudaSuccess);
    std::string output(inputs[0].size(), '\0');
    EXPECT_EQ(cudaMemcpy(output.data(), d_output, output.size(), cudaMemcpyDefault), cudaSuccess);
    return output;
  }

  // Where the tensors of a batch are.
  struct Where {
    std::vector<int64_t> sizes;  // tokens of each segment
    bool inputs_on_device = false;
    bool outputs_on_device = false;
    size_t shift = 0;  // bytes from the alignment of memory
    bool in_place = false;
    // The kernels use the tensors where they lie.
    bool reads_in_place = false;
    bool writes_in_place = false;
  };

  // Runs random tokens and compares every segment.
  void ExpectRight(const Where& where) {
    int64_t num_tokens = 0;
    for (const int64_t size : where.sizes) num_tokens += size;
    std::vector<std::string> inputs;
    for (size_t k = 0; k < model_.inputs.size(); ++k) {
      inputs.push_back(RandomRows(num_tokens * kMlpHidden, static_cast<uint32_t>(10 + k)));
    }
    Batch batch{.model = &model_, .weights = weights_.get()};
    batch.placement.device =
        where.inputs_on_device || where.outputs_on_device ? ordinal_ : kCpuDevice;
    batch.placement.is_resident = where.inputs_on_device && where.outputs_on_device;
    size_t first = 0;
    for (const int64_t size : where.sizes) {
      const auto size_bytes = static_cast<size_t>(size * kMlpRowBytes);
      Segment segment{.num_elements = size * kMlpHidden};
      // As the server's, a request without tokens has no addresses.
      if (size == 0) {
        batch.segments.push_back(segment);
        continue;
      }
      for (size_t k = 0; k < inputs.size(); ++k) {
        std::byte* const memory = Allocate(where.inputs_on_device, size_bytes, where.shift);
        cudaMemcpy(memory, inputs[k].data() + first, size_bytes, cudaMemcpyDefault);
        segment.inputs[k] = memory;
        if (k == 0 && where.in_place) segment.outputs[0] = memory;
      }
      if (!where.in_place) {
        segment.outputs[0] = Allocate(where.outputs_on_device, size_bytes, where.shift);
      }
      batch.segments.push_back(segment);
      first += size_bytes;
    }
    ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);

    absl::Notification finished;
    LaneResult outcome;
    lane_->Run(batch, PlanLaunch(batch, {}), [&](const LaneResult& result) {
      outcome = result;
      finished.Notify();
    });
    finished.WaitForNotification();
    ASSERT_TRUE(outcome.execution.status.ok()) << outcome.execution.status;
    EXPECT_EQ(outcome.execution.path, batch.placement.is_resident ? Path::kRegion : Path::kStaged);
    EXPECT_EQ(outcome.execution.times.compute.count() > 0, num_tokens > 0);
    EXPECT_EQ(outcome.execution.times.copy_in.count() > 0, num_tokens > 0 && !where.reads_in_place);
    EXPECT_EQ(outcome.execution.times.copy_out.count() > 0,
              num_tokens > 0 && !where.writes_in_place);
    const std::string expected = num_tokens == 0 ? "" : Expected(inputs);
    std::string got;
    for (const Segment& segment : batch.segments) {
      std::string part(static_cast<size_t>(segment.num_elements * 2), '\0');
      if (part.empty()) continue;
      cudaMemcpy(part.data(), segment.outputs[0], part.size(), cudaMemcpyDefault);
      got += part;
    }
    EXPECT_TRUE(got == expected);
  }

  int ordinal_ = 0;
  TempFolder folder_;
  Model model_;
  std::shared_ptr<const Weights> weights_;
  std::vector<CudaMemory> device_memory_;
  std::vector<CudaHostMemory> host_memory_;
  std::unique_ptr<CudaLane> lane_;
};

TEST_P(CudaMlpTest, GathersFromPinnedMemory) {
  ExpectRight({.sizes = {5}});
  ExpectRight({.sizes = {1, 0, 3, 17, 2}});
  ExpectRight({.sizes = {0, 5}});
  ExpectRight({.sizes = {3, 4}, .in_place = true});
  ExpectRight({.sizes = {kMaxTokens}});
}

TEST_P(CudaMlpTest, GathersFromTheDevice) {
  ExpectRight({.sizes = {2, 30, 1}, .inputs_on_device = true, .outputs_on_device = true});
  ExpectRight(
      {.sizes = {2, 3}, .inputs_on_device = true, .outputs_on_device = true, .in_place = true});
}

TEST_P(CudaMlpTest, UsesATensorWhereItLies) {
  ExpectRight({.sizes = {33},
               .inputs_on_device = true,
               .outputs_on_device = true,
               .reads_in_place = true,
               .writes_in_place = true});
  ExpectRight({.sizes = {33},
               .inputs_on_device = true,
               .outputs_on_device = true,
               .in_place = true,
               .reads_in_place = true});
}

TEST_P(CudaMlpTest, TakesTensorsOfBothMemories) {
  ExpectRight({.sizes = {4, 5}, .inputs_on_device = true});
  ExpectRight({.sizes = {4, 5}, .outputs_on_device = true});
}

TEST_P(CudaMlpTest, CopiesWhatIsNotAligned) {
  ExpectRight({.sizes = {4, 5}, .shift = 2});
  ExpectRight({.sizes = {4}, .inputs_on_device = true, .outputs_on_device = true, .shift = 2});
}

TEST_P(CudaMlpTest, TakesMoreSegmentsThanOneLaunchCopies) {
  ExpectRight({.sizes = std::vector<int64_t>(300, 2)});
  ExpectRight({.sizes = std::vector<int64_t>(200, 3)});
}

TEST_P(CudaMlpTest, TakesABatchWithoutTokens) { ExpectRight({.sizes = {0, 0}}); }

TEST_P(CudaMlpTest, SaysWhereTheWeightsAre) {
  ASSERT_EQ(weights_->places().size(), 1u);
  EXPECT_EQ(weights_->places()[0].device, ordinal_);
  EXPECT_EQ(weights_->places()[0].size_bytes, 3 * kMlpHidden * kIntermediate * 2);
}

TEST(CudaWeightsTest, ALayerThatHasNoRoomIsAnErrorWithTheSizes) {
  const auto devices = FindCudaDevices();
  if (!devices.ok()) GTEST_SKIP() << devices.status().message();
  // 412 GB, none of them on the disk.
  constexpr int64_t kRows = int64_t{1} << 16;
  constexpr int64_t kColumns = int64_t{1} << 20;
  constexpr int64_t kBytes = kRows * kColumns * 2;
  const auto entry = [](absl::string_view name, int64_t rows, int64_t columns, int64_t first) {
    return absl::StrCat(R"(")", name, R"(_proj.weight":{"dtype":"F16","shape":[)", rows, ",",
                        columns, R"(],"data_offsets":[)", first, ",", first + kBytes, "]}");
  };
  const std::string header = absl::StrCat("{", entry("gate", kRows, kColumns, 0), ",",
                                          entry("up", kRows, kColumns, kBytes), ",",
                                          entry("down", kColumns, kRows, 2 * kBytes), "}");
  TempFolder folder;
  const std::string path = folder.Write("large.safetensors", HeaderLength(header.size()) + header);
  std::error_code error;
  std::filesystem::resize_file(path, 8 + header.size() + 3 * kBytes, error);
  if (error) GTEST_SKIP() << "the file system has no sparse files of 412 GB: " << error.message();
  const auto files = MlpFiles::Open({"m", path, {}});
  ASSERT_TRUE(files.ok()) << files.status();
  CudaWeightsLoader loader({devices->front().ordinal}, 1, 1);
  const absl::Status status =
      loader.Load(**files, 0, nullptr, [](int64_t) { return absl::OkStatus(); }).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(
      std::string(status.message()),
      testing::MatchesRegex("no room on device [0-9]+ for the weights of layer 0: "
                            "412316860416 bytes are needed, and [0-9]+ of [0-9]+ are free"));
}

class CudaMlpGradientsTest : public CudaMlpTest {
 protected:
  static constexpr int64_t kMatrixElements = kMlpHidden * kIntermediate;
  static constexpr size_t kMatrixBytes = kMatrixElements * sizeof(float);

  using Gradients = std::array<float*, kMaxGradients>;

  // Memory for those gradients that are wanted, with other numbers in it.
  Gradients AllocateGradients(const std::vector<int>& wanted, bool on_device, size_t shift) {
    Gradients gradients{};
    for (const int i : wanted) {
      std::byte* const memory = Allocate(on_device, kMatrixBytes, shift);
      cudaMemset(memory, 0x40, kMatrixBytes);
      gradients[static_cast<size_t>(i)] = reinterpret_cast<float*>(memory);
    }
    return gradients;
  }

  static std::string BytesAt(const void* memory, size_t size_bytes) {
    std::string bytes(size_bytes, '?');
    EXPECT_EQ(cudaMemcpy(bytes.data(), memory, size_bytes, cudaMemcpyDefault), cudaSuccess);
    return bytes;
  }

  // What is asked for, and where it is.
  struct Wish {
    int64_t num_tokens = 0;
    std::vector<int> gradients = {0, 1, 2};
    bool wants_dx = false;
    bool on_device = false;
    size_t shift = 0;
  };

  // Runs random tokens, and compares with the kernel on all of them at once.
  void ExpectRightGradients(const Wish& wish) {
    const auto size_bytes = static_cast<size_t>(wish.num_tokens * kMlpRowBytes);
    std::vector<const std::byte*> d_inputs;
    Segment segment{.num_elements = wish.num_tokens * kMlpHidden};
    for (size_t k = 0; k < 2; ++k) {
      const std::string input =
          RandomRows(wish.num_tokens * kMlpHidden, static_cast<uint32_t>(20 + k));
      std::byte* const memory = Allocate(wish.on_device, size_bytes + 1, wish.shift);
      std::byte* const copy = Allocate(true, size_bytes + 1);
      cudaMemcpy(memory, input.data(), size_bytes, cudaMemcpyDefault);
      cudaMemcpy(copy, input.data(), size_bytes, cudaMemcpyDefault);
      segment.inputs[k] = memory;
      d_inputs.push_back(copy);
    }
    if (wish.wants_dx) segment.outputs[0] = Allocate(wish.on_device, size_bytes + 1, wish.shift);
    segment.gradients = AllocateGradients(wish.gradients, wish.on_device, wish.shift);
    Batch batch{.model = &model_, .segments = {segment}, .weights = weights_.get()};
    if (wish.on_device) batch.placement = {ordinal_, true};
    ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);

    const LaunchPlan plan = PlanLaunch(batch, {});
    EXPECT_FALSE(plan.caller_launches);
    absl::Notification finished;
    absl::Status status;
    lane_->Run(batch, plan, [&](const LaneResult& result) {
      status = result.execution.status;
      finished.Notify();
    });
    finished.WaitForNotification();
    ASSERT_TRUE(status.ok()) << status;

    const swiglu::CudaMlpWeights weights = static_cast<const CudaWeights&>(*weights_).On(ordinal_);
    const int64_t workspace_bytes =
        swiglu::MlpGradientsWorkspaceBytes(weights, wish.num_tokens) + 16;
    std::byte* const workspace = Allocate(true, static_cast<size_t>(workspace_bytes));
    std::byte* const dx = Allocate(true, size_bytes + 1);
    const Gradients expected = AllocateGradients({0, 1, 2}, true, 0);
    ASSERT_EQ(swiglu::MlpBackwardCuda(weights,
                                      {d_inputs[0],
                                       d_inputs[1],
                                       dx,
                                       wish.num_tokens,
                                       workspace,
                                       workspace_bytes,
                                       {expected[0], expected[1], expected[2]}},
                                      swiglu::MlpPath::kAuto, nullptr),
              cudaSuccess);
    ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
    for (const int i : wish.gradients) {
      const auto k = static_cast<size_t>(i);
      EXPECT_TRUE(BytesAt(segment.gradients[k], kMatrixBytes) == BytesAt(expected[k], kMatrixBytes))
          << "gradient " << i << " of " << wish.num_tokens << " tokens";
    }
    if (wish.wants_dx) {
      EXPECT_TRUE(BytesAt(segment.outputs[0], size_bytes) == BytesAt(dx, size_bytes));
    }
  }
};

TEST_P(CudaMlpGradientsTest, GoToPinnedMemory) {
  ExpectRightGradients({.num_tokens = 5});
  ExpectRightGradients({.num_tokens = 5, .gradients = {1}, .wants_dx = true});
  ExpectRightGradients({.num_tokens = 5, .gradients = {0, 2}, .shift = 4});
}

TEST_P(CudaMlpGradientsTest, StayOnTheDevice) {
  ExpectRightGradients({.num_tokens = 33, .wants_dx = true, .on_device = true});
  ExpectRightGradients({.num_tokens = 33, .gradients = {2}, .on_device = true});
  ExpectRightGradients({.num_tokens = 33, .wants_dx = true, .on_device = true, .shift = 4});
}

// In pieces of 16 tokens.
TEST_P(CudaMlpGradientsTest, AddUpThoseOfAllPieces) {
  model_.max_batch_rows = 31;
  for (const bool on_device : {false, true}) {
    for (const int64_t num_tokens : {16, 17, 100, 1000}) {
      ExpectRightGradients({.num_tokens = num_tokens, .wants_dx = true, .on_device = on_device});
    }
  }
}

// A lane that has room for no more than the model needs.
TEST_P(CudaMlpGradientsTest, FitALaneOfTheirModel) {
  auto lane =
      CudaLane::CreateForMlps(ordinal_, {{kMlpHidden, kIntermediate, MostBatchRows(model_)}});
  ASSERT_TRUE(lane.ok()) << lane.status();
  lane_ = *std::move(lane);
  ExpectRightGradients({.num_tokens = GradientRows(model_), .wants_dx = true});
  ExpectRightGradients({.num_tokens = GradientRows(model_), .on_device = true});
}

TEST_P(CudaMlpGradientsTest, AreZerosWithoutTokens) {
  ExpectRightGradients({.num_tokens = 0});
  ExpectRightGradients({.num_tokens = 0, .wants_dx = true, .on_device = true});
}

INSTANTIATE_TEST_SUITE_P(Backward, CudaMlpGradientsTest, testing::Values(Op::kMlpBackward));

INSTANTIATE_TEST_SUITE_P(Ops, CudaMlpTest, testing::Values(Op::kMlpForward, Op::kMlpBackward),
                         [](const auto& tested) { return std::string(OpLabel(tested.param)); });

}  // namespace
}  // namespace swiglu::server
