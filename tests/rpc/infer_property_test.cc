// SPDX-License-Identifier: Apache-2.0
//
// Random requests of many callers at once, unary and streamed, over the CPU executor: every answer
// has the very bits of its request computed alone, and each request is answered once. The memory
// pool is poisoned, so that a byte which nobody wrote shows. `--gtest_random_seed=N` repeats a run.
#include <algorithm>
#include <array>
#include <cstring>
#include <iostream>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "gtest/gtest.h"
#include "server/device/cpu_executor.h"
#include "tests/rpc/calls.h"

namespace swiglu::server {
namespace {

using inference::ModelInferRequest;
using inference::ModelInferResponse;

// The CPU executor, with a batch limit of the test's and inputs in the form that it asks for.
class ShapedCpuExecutor final : public Executor {
 public:
  ShapedCpuExecutor(int64_t max_batch_bytes, InputForm input_form)
      : max_batch_bytes_(max_batch_bytes), input_form_(input_form) {
    auto created = CpuExecutor::Create(
        {.num_lanes = 3, .memory = {.capacity_bytes = size_t{1} << 30, .poison = 0xA5}});
    EXPECT_TRUE(created.ok()) << created.status();
    cpu_ = *std::move(created);
  }

  int num_lanes() const override { return cpu_->num_lanes(); }
  int max_segments() const override { return cpu_->max_segments(); }
  int64_t max_batch_bytes() const override { return max_batch_bytes_; }
  bool TakesReaders() const override { return input_form_ == InputForm::kInPieces; }
  void Run(const Batch& batch, Done done) override { cpu_->Run(batch, std::move(done)); }
  bool healthy() const override { return true; }
  SlabPool& slab_pool() override { return cpu_->slab_pool(); }
  std::string description() const override { return cpu_->description(); }

  size_t used_bytes() const { return cpu_->slab_pool().used_bytes(); }

 private:
  const int64_t max_batch_bytes_;
  const InputForm input_form_;
  std::unique_ptr<CpuExecutor> cpu_;
};

struct Case {
  ModelInferRequest request;
  // The tensors of its answer, in the order asked for.
  std::vector<std::string> outputs;
};

// The outputs of one request alone: one batch of one segment, each tensor in one piece.
std::vector<std::string> ComputeAlone(const Model& model, const std::vector<std::string>& inputs,
                                      int64_t num_elements) {
  std::vector<std::string> outputs(model.outputs.size(), std::string(inputs[0].size(), '\0'));
  Segment segment;
  segment.num_elements = num_elements;
  for (size_t k = 0; k < inputs.size(); ++k) {
    segment.inputs[k] = reinterpret_cast<const std::byte*>(inputs[k].data());
  }
  for (size_t k = 0; k < outputs.size(); ++k) {
    segment.outputs[k] = reinterpret_cast<std::byte*>(outputs[k].data());
  }
  auto executor = CpuExecutor::Create({.num_lanes = 1, .memory = {.capacity_bytes = 1}});
  (*executor)->Run({&model, {segment}},
                   [](const Execution& execution) { EXPECT_TRUE(execution.status.ok()); });
  return outputs;
}

// Makes requests that keep the protocol's rules and have little else in common.
class CaseMaker {
 public:
  explicit CaseMaker(uint32_t seed) : random_(seed) {}

  Case Make(const std::string& id) {
    const auto op = static_cast<Op>(Below(2));
    const Model& model = GetModel(op, static_cast<Dtype>(Below(3)));
    const std::vector<int64_t> shape = MakeShape();
    const int64_t num_elements = NumElements(shape);
    std::vector<std::string> inputs;
    for (size_t k = 0; k < model.inputs.size(); ++k) {
      inputs.push_back(MakeBits(static_cast<size_t>(num_elements * ElementBytes(model.dtype))));
    }
    const std::vector<std::string> outputs = ComputeAlone(model, inputs, num_elements);

    Case made;
    made.request.set_id(id);
    made.request.set_model_name(std::string(model.name));
    for (const auto& name : model.inputs) {
      AddInput(std::string(name), std::string(DatatypeName(model.dtype)), shape, &made.request);
    }
    const bool typed = model.dtype == Dtype::kFp32 && Below(3) == 0;
    for (size_t k = 0; k < inputs.size(); ++k) {
      typed ? AddTyped(inputs[k], made.request.mutable_inputs(static_cast<int>(k)))
            : made.request.add_raw_input_contents(inputs[k]);
    }
    for (const size_t k : ChooseOutputs(model, &made.request)) made.outputs.push_back(outputs[k]);
    return made;
  }

  // A number of 0 to `limit` - 1.
  size_t Below(size_t limit) { return random_() % limit; }
  std::mt19937& random() { return random_; }

 private:
  // From none to some hundred thousand elements, in up to four dimensions; most are small.
  std::vector<int64_t> MakeShape() {
    static constexpr int64_t kLimits[] = {2, 20, 300, 300, 5'000, 5'000, 70'000, 400'000};
    int64_t left = static_cast<int64_t>(Below(kLimits[Below(std::size(kLimits))]));
    std::vector<int64_t> shape;
    for (size_t rank = Below(4); rank > 0; --rank) {
      shape.push_back(1 + static_cast<int64_t>(Below(5)));
      left /= shape.back();
    }
    shape.push_back(left);
    std::shuffle(shape.begin(), shape.end(), random_);
    return shape;
  }
  // Every pattern there is: infinities, subnormals and what is no number included.
  std::string MakeBits(size_t size_bytes) {
    std::string bits(size_bytes, '\0');
    for (size_t i = 0; i < size_bytes; i += 2) {
      const auto word = static_cast<uint16_t>(random_());
      std::memcpy(&bits[i], &word, sizeof(word));
    }
    return bits;
  }
  static void AddTyped(const std::string& bits, ModelInferRequest::InferInputTensor* input) {
    auto* values = input->mutable_contents()->mutable_fp32_contents();
    values->Resize(static_cast<int>(bits.size() / sizeof(float)), 0);
    if (!bits.empty()) std::memcpy(values->mutable_data(), bits.data(), bits.size());
  }
  // All outputs, by naming none or each, or some of them in any order.
  std::vector<size_t> ChooseOutputs(const Model& model, ModelInferRequest* request) {
    std::vector<size_t> chosen(model.outputs.size());
    for (size_t k = 0; k < chosen.size(); ++k) chosen[k] = k;
    if (Below(2) == 0) return chosen;
    std::shuffle(chosen.begin(), chosen.end(), random_);
    chosen.resize(1 + Below(chosen.size()));
    for (const size_t k : chosen) request->add_outputs()->set_name(std::string(model.outputs[k]));
    return chosen;
  }

  std::mt19937 random_;
};

void ExpectAnswer(const Case& sent, const ModelInferResponse& answer) {
  ASSERT_EQ(answer.id(), sent.request.id());
  ASSERT_EQ(answer.raw_output_contents_size(), static_cast<int>(sent.outputs.size()))
      << sent.request.model_name();
  for (size_t k = 0; k < sent.outputs.size(); ++k) {
    EXPECT_TRUE(answer.raw_output_contents(static_cast<int>(k)) == sent.outputs[k])
        << sent.request.model_name() << " of " << sent.outputs[k].size() << " bytes, output " << k;
  }
}

// One after the other, as calls of their own.
void CallUnary(TestServer& server, const std::vector<const Case*>& cases) {
  for (const Case* sent : cases) {
    const auto result = Infer(server, sent->request);
    ASSERT_TRUE(result.status.ok()) << result.status.error_message();
    ExpectAnswer(*sent, result.response);
  }
}

// All at once over one stream.
void CallStream(TestServer& server, const std::vector<const Case*>& cases) {
  InferStream stream(server);
  std::thread sender([&] {
    for (const Case* sent : cases) stream.Send(sent->request);
    stream.HalfClose();
  });
  std::map<std::string, const Case*> unanswered;
  for (const Case* sent : cases) unanswered[sent->request.id()] = sent;
  inference::ModelStreamInferResponse answer;
  while (stream.TryReceive(&answer)) {
    EXPECT_EQ(answer.error_message(), "");
    const auto sent = unanswered.extract(answer.infer_response().id());
    ASSERT_FALSE(sent.empty()) << answer.infer_response().id() << " is unknown or answered twice";
    ExpectAnswer(*sent.mapped(), answer.infer_response());
  }
  sender.join();
  EXPECT_TRUE(stream.Finish().ok());
  EXPECT_TRUE(unanswered.empty()) << unanswered.size() << " without an answer";
}

struct Shape {
  const char* name;
  int64_t max_batch_bytes;
  InputForm input_form;
};

class InferPropertyTest : public testing::TestWithParam<Shape> {};

INSTANTIATE_TEST_SUITE_P(, InferPropertyTest,
                         testing::Values(Shape{"InPieces", 1 << 20, InputForm::kInPieces},
                                         Shape{"InPiecesAndManyChunks", 6'000,
                                               InputForm::kInPieces},
                                         Shape{"Whole", 1 << 20, InputForm::kWhole},
                                         Shape{"WholeAndManyChunks", 6'000, InputForm::kWhole}),
                         [](const auto& param_info) { return param_info.param.name; });

TEST_P(InferPropertyTest, AnswersEveryRequestOnceWithItsOwnBits) {
  constexpr size_t kCallers = 6;
  constexpr size_t kRequests = 240;
  const int32_t given_seed = testing::GTEST_FLAG(random_seed);
  const uint32_t seed =
      given_seed != 0 ? static_cast<uint32_t>(given_seed) : std::random_device()() % 99'999 + 1;
  std::cout << "seed " << seed << std::endl;
  CaseMaker maker(seed);
  std::vector<Case> cases;
  for (size_t i = 0; i < kRequests; ++i) cases.push_back(maker.Make(std::to_string(i)));
  std::array<std::vector<const Case*>, kCallers> shares;
  for (const Case& made : cases) shares[maker.Below(kCallers)].push_back(&made);

  ShapedCpuExecutor executor(GetParam().max_batch_bytes, GetParam().input_form);
  TestServerOptions options;
  options.io_threads = 4;
  {
    TestServer server(&executor, options);
    std::vector<std::thread> callers;
    for (size_t i = 0; i < kCallers; ++i) {
      callers.emplace_back(
          [&, i] { i % 2 == 0 ? CallUnary(server, shares[i]) : CallStream(server, shares[i]); });
    }
    for (std::thread& caller : callers) caller.join();
    EXPECT_EQ(server.observer.AwaitCodes(kRequests),
              std::vector<absl::StatusCode>(kRequests, absl::StatusCode::kOk));
    EXPECT_TRUE(server.AwaitIdle());
  }
  EXPECT_EQ(executor.used_bytes(), 0u);
}

}  // namespace
}  // namespace swiglu::server
