// SPDX-License-Identifier: Apache-2.0
//
// Batches of MLPs on the CPU, and the gradients of their weights, against the kernel called
// directly with all rows in one piece.
#include "server/device/cpu_mlp.h"

#include <algorithm>
#include <cstring>
#include <memory>
#include <span>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/synchronization/notification.h"
#include "gtest/gtest.h"
#include "server/device/cpu_weights.h"
#include "server/weights/mlp_files.h"
#include "swiglu/cpu_mlp.h"
#include "tests/client/temp_folder.h"
#include "tests/weights/model_writer.h"

namespace swiglu::server {
namespace {

constexpr int64_t kHidden = 16;
constexpr int64_t kRowBytes = 2 * kHidden;

// Gives the bytes of one tensor for each input.
class TextReader final : public InputReader {
 public:
  explicit TextReader(std::vector<std::string> inputs) : inputs_(std::move(inputs)) {}
  void Read(int k, std::byte* target, size_t size_bytes) override {
    std::memcpy(target, inputs_[static_cast<size_t>(k)].data(), size_bytes);
    inputs_[static_cast<size_t>(k)].erase(0, size_bytes);
  }

 private:
  std::vector<std::string> inputs_;
};

// Rows of small numbers. Each byte pair is a BF16 between 0.5 and 2.
std::string Rows(int64_t num_rows, uint32_t seed) {
  std::string rows = Pattern(static_cast<size_t>(num_rows * kRowBytes), seed);
  for (size_t i = 1; i < rows.size(); i += 2) rows[i] = 0x3F;
  return rows;
}

class CpuMlpTest : public testing::TestWithParam<Op> {
 protected:
  CpuMlpTest() {
    std::vector<TestTensor> tensors = SmallMlp("", 1);
    for (TestTensor& tensor : tensors) {
      for (size_t i = 1; i < tensor.bytes.size(); i += 2) tensor.bytes[i] = 0x3E;
    }
    const auto files =
        MlpFiles::Open({"m", folder_.Write("m.safetensors", ModelFile(tensors)), {}});
    EXPECT_TRUE(files.ok()) << files.status();
    CpuWeightsLoader loader;
    auto weights = loader.Load(**files, 0, nullptr, [](int64_t) { return absl::OkStatus(); });
    EXPECT_TRUE(weights.ok()) << weights.status();
    weights_ = *std::move(weights);
  }

  // What the kernel computes from whole tensors.
  std::string Expected(const std::vector<std::string>& inputs,
                       const swiglu::MlpWeightGradients& gradients = {}) {
    const swiglu::CpuMlpWeights& packed = static_cast<const CpuWeights&>(*weights_).packed();
    const auto num_tokens = static_cast<int64_t>(inputs[0].size()) / kRowBytes;
    std::string output(inputs[0].size(), '\0');
    std::vector<std::byte> workspace(
        static_cast<size_t>(packed.BackwardWorkspaceBytes(num_tokens)) + swiglu::kMlpAlignment);
    void* aligned = workspace.data();
    size_t room = workspace.size();
    std::align(swiglu::kMlpAlignment, 1, aligned, room);
    const std::span<std::byte> work(static_cast<std::byte*>(aligned), room);
    swiglu::CpuPool pool(1);
    const swiglu::MlpStatus status =
        GetParam() == Op::kMlpForward
            ? packed.Forward({inputs[0].data(), output.data(), num_tokens, work}, pool)
            : packed.Backward(
                  {inputs[0].data(), inputs[1].data(), output.data(), num_tokens, work, gradients},
                  pool);
    EXPECT_EQ(status, swiglu::MlpStatus::kOk);
    return output;
  }

  // Waits for the end of the batch.
  absl::Status Run(const Batch& batch) {
    absl::Status status;
    absl::Notification done;
    mlp_.Run(batch, [&](const Execution& execution) {
      status = execution.status;
      EXPECT_EQ(execution.path, Path::kCpu);
      done.Notify();
    });
    done.WaitForNotification();
    return status;
  }

  Batch NewBatch() { return {.model = &model_, .weights = weights_.get()}; }

  const Model model_ = MakeMlpModel({.op = GetParam(), .mlp = "m", .hidden = kHidden});
  const std::vector<std::string> inputs_{Rows(5, 1), Rows(5, 2)};
  TempFolder folder_;
  std::shared_ptr<const Weights> weights_;
  CpuMlp mlp_{2};
};

std::byte* Bytes(std::string& text) { return reinterpret_cast<std::byte*>(text.data()); }
const std::byte* Bytes(const std::string& text) {
  return reinterpret_cast<const std::byte*>(text.data());
}

TEST_P(CpuMlpTest, ComputesOneSegmentWhereItLies) {
  std::string output(inputs_[0].size(), '?');
  Batch batch = NewBatch();
  batch.segments.push_back({.inputs = {Bytes(inputs_[0]), Bytes(inputs_[1])},
                            .outputs = {Bytes(output)},
                            .num_elements = 5 * kHidden});
  EXPECT_TRUE(Run(batch).ok());
  EXPECT_EQ(output, Expected(inputs_));
}

// Rows of two segments and of a reader, one of them empty, make one pass.
TEST_P(CpuMlpTest, PutsSegmentsTogether) {
  const auto part = [this](int64_t first, int64_t num_rows) {
    std::vector<std::string> parts;
    for (const std::string& input : inputs_) {
      parts.push_back(input.substr(static_cast<size_t>(first * kRowBytes),
                                   static_cast<size_t>(num_rows * kRowBytes)));
    }
    return parts;
  };
  const std::vector<std::string> first = part(0, 2);
  TextReader reader(part(2, 3));
  std::string outputs[] = {std::string(2 * kRowBytes, '?'), std::string(3 * kRowBytes, '?')};
  Batch batch = NewBatch();
  batch.segments.push_back({.inputs = {Bytes(first[0]), Bytes(first[1])},
                            .outputs = {Bytes(outputs[0])},
                            .num_elements = 2 * kHidden});
  batch.segments.push_back({});
  batch.segments.push_back(
      {.outputs = {Bytes(outputs[1])}, .num_elements = 3 * kHidden, .reader = &reader});
  EXPECT_TRUE(Run(batch).ok());
  EXPECT_EQ(outputs[0] + outputs[1], Expected(inputs_));
}

TEST_P(CpuMlpTest, ReadsASingleSegmentFromAReader) {
  TextReader reader(inputs_);
  std::string output(inputs_[0].size(), '?');
  Batch batch = NewBatch();
  batch.segments.push_back(
      {.outputs = {Bytes(output)}, .num_elements = 5 * kHidden, .reader = &reader});
  EXPECT_TRUE(Run(batch).ok());
  EXPECT_EQ(output, Expected(inputs_));
}

TEST_P(CpuMlpTest, ReplacesAnInput) {
  std::string x = inputs_[0];
  Batch batch = NewBatch();
  batch.segments.push_back({.inputs = {Bytes(x), Bytes(inputs_[1])},
                            .outputs = {Bytes(x)},
                            .num_elements = 5 * kHidden});
  EXPECT_TRUE(Run(batch).ok());
  EXPECT_EQ(x, Expected(inputs_));
}

// The thread of the pass is never the caller's, and batches end in their order.
TEST_P(CpuMlpTest, ComputesOnAThreadOfItsOwn) {
  Batch batch = NewBatch();
  const std::thread::id caller = std::this_thread::get_id();
  std::vector<int> ended;
  absl::Notification all_done;
  for (int i = 0; i < 3; ++i) {
    mlp_.Run(batch, [&, i](const Execution&) {
      EXPECT_NE(std::this_thread::get_id(), caller);
      ended.push_back(i);
      if (i == 2) all_done.Notify();
    });
  }
  all_done.WaitForNotification();
  EXPECT_EQ(ended, (std::vector<int>{0, 1, 2}));
}

TEST_P(CpuMlpTest, HasNothingToDoWithoutRows) {
  Batch batch = NewBatch();
  EXPECT_TRUE(Run(batch).ok());
  batch.segments.resize(2);
  EXPECT_TRUE(Run(batch).ok());
}

using Floats = std::vector<float>;

// 40 rows: with a limit of 20 rows, these are two pieces of 16 and one of 8. I = 8.
class CpuMlpGradientsTest : public CpuMlpTest {
 protected:
  CpuMlpGradientsTest() {
    Floats* const all[] = {&gate_, &up_, &down_};
    for (Floats* gradient : all) gradient->resize(kHidden * 8);
    dx_ = Expected(inputs_, {gate_.data(), up_.data(), down_.data()});
  }

  // A segment that wants all gradients, into `found_`, and no dx.
  Segment NewSegment() {
    Segment segment{.num_elements = 40 * kHidden};
    for (size_t g = 0; g < 3; ++g) segment.gradients[g] = found_[g].data();
    return segment;
  }
  Segment NewSegmentWithInputs() {
    Segment segment = NewSegment();
    segment.inputs = {Bytes(inputs_[0]), Bytes(inputs_[1])};
    return segment;
  }
  absl::Status RunSegment(const Segment& segment) {
    Batch batch{.model = &limited_, .weights = weights_.get()};
    batch.segments.push_back(segment);
    return Run(batch);
  }
  void ExpectAllGradients() {
    EXPECT_TRUE(found_[0] == gate_);
    EXPECT_TRUE(found_[1] == up_);
    EXPECT_TRUE(found_[2] == down_);
  }

  const Model limited_ = MakeMlpModel({.op = Op::kMlpBackward,
                                       .mlp = "m",
                                       .hidden = kHidden,
                                       .intermediate = 8,
                                       .max_batch_rows = 20});
  const std::vector<std::string> inputs_{Rows(40, 1), Rows(40, 2)};
  Floats gate_, up_, down_;
  std::string dx_;
  std::vector<Floats> found_ = std::vector<Floats>(3, Floats(kHidden * 8, 9.0f));
};

TEST_P(CpuMlpGradientsTest, AddUpThoseOfAllPieces) {
  EXPECT_TRUE(RunSegment(NewSegmentWithInputs()).ok());
  ExpectAllGradients();
}

TEST_P(CpuMlpGradientsTest, ComeWithDx) {
  std::string dx(dx_.size(), '?');
  Segment segment = NewSegmentWithInputs();
  segment.outputs = {Bytes(dx)};
  EXPECT_TRUE(RunSegment(segment).ok());
  EXPECT_EQ(dx, dx_);
  ExpectAllGradients();
}

TEST_P(CpuMlpGradientsTest, ReadTheirRowsFromAReader) {
  TextReader reader(inputs_);
  std::string dx(dx_.size(), '?');
  Segment segment = NewSegment();
  segment.outputs = {Bytes(dx)};
  segment.reader = &reader;
  EXPECT_TRUE(RunSegment(segment).ok());
  EXPECT_EQ(dx, dx_);
  ExpectAllGradients();
}

TEST_P(CpuMlpGradientsTest, ReadTheirRowsFromAReaderWithoutDx) {
  TextReader reader(inputs_);
  Segment segment = NewSegment();
  segment.reader = &reader;
  EXPECT_TRUE(RunSegment(segment).ok());
  ExpectAllGradients();
}

TEST_P(CpuMlpGradientsTest, LeaveRoomForDxInPlace) {
  std::string x = inputs_[0];
  Segment segment = NewSegmentWithInputs();
  segment.inputs[0] = Bytes(x);
  segment.outputs = {Bytes(x)};
  EXPECT_TRUE(RunSegment(segment).ok());
  EXPECT_EQ(x, dx_);
  ExpectAllGradients();
}

TEST_P(CpuMlpGradientsTest, ComeOnlyWhereTheyAreWanted) {
  Segment segment = NewSegmentWithInputs();
  segment.gradients[0] = segment.gradients[2] = nullptr;
  EXPECT_TRUE(RunSegment(segment).ok());
  EXPECT_TRUE(found_[1] == up_);
  EXPECT_TRUE(found_[0] == Floats(kHidden * 8, 9.0f));
}

TEST_P(CpuMlpGradientsTest, AreZeroWithoutRows) {
  Segment segment = NewSegment();
  segment.num_elements = 0;
  EXPECT_TRUE(RunSegment(segment).ok());
  for (const Floats& gradient : found_) EXPECT_TRUE(gradient == Floats(kHidden * 8, 0.0f));
}

INSTANTIATE_TEST_SUITE_P(Backward, CpuMlpGradientsTest, testing::Values(Op::kMlpBackward));

INSTANTIATE_TEST_SUITE_P(All, CpuMlpTest, testing::Values(Op::kMlpForward, Op::kMlpBackward),
                         [](const auto& parameter) {
                           return parameter.param == Op::kMlpForward ? "Forward" : "Backward";
                         });

}  // namespace
}  // namespace swiglu::server
