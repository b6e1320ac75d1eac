// SPDX-License-Identifier: Apache-2.0
//
// A list of inferences, and a computation on bytes.
#include "tests/client/fake_connection.h"

#include <algorithm>

#include "absl/time/clock.h"
#include "client/event_queue.h"
#include "tests/client/bytes.h"

namespace swiglu::client {
namespace {

constexpr const char* kFakeInputs[] = {"DW", "e", "g"};
constexpr const char* kFakeOutputs[] = {"h", "df", "de"};

std::byte FakeByte(const Inference& inference, size_t output, size_t i) {
  uint32_t value = 7 * static_cast<uint32_t>(output + 1);
  for (const Inference::Input& input : inference.inputs) {
    value = 31 * value + std::to_integer<uint32_t>(input.bytes[i]);
  }
  return static_cast<std::byte>(value & 0xff);
}

}  // namespace

void FakeCompute(const Inference& inference) {
  // An output may be the memory of an input.
  std::vector<std::vector<std::byte>> outputs(inference.outputs.size());
  for (size_t k = 0; k < outputs.size(); ++k) {
    outputs[k].resize(inference.outputs[k].bytes.size());
    for (size_t i = 0; i < outputs[k].size(); ++i) outputs[k][i] = FakeByte(inference, k, i);
  }
  for (size_t k = 0; k < outputs.size(); ++k) {
    std::copy(outputs[k].begin(), outputs[k].end(), inference.outputs[k].bytes.begin());
  }
}

void FakeConnection::StartInfer(const Inference& inference, const CallContext& context, Done done) {
  Arrival arrival{&inference,      context, std::string(inference.model),
                  inference.shape, {},      context.options->statistics != nullptr};
  for (const Inference::Input& input : inference.inputs) {
    arrival.inputs.push_back(AsText(input.bytes));
  }
  size_t number = 0;
  {
    absl::MutexLock lock(&mutex_);
    number = kept_.size();
    kept_.push_back({std::move(arrival), std::move(done)});
  }
  if (at_arrival_) at_arrival_(number);
}

size_t FakeConnection::num_arrivals() const {
  absl::MutexLock lock(&mutex_);
  return kept_.size();
}

void FakeConnection::WaitForArrivals(size_t count) const {
  absl::MutexLock lock(&mutex_);
  const auto have_come = [this, count] {
    mutex_.AssertHeld();
    return kept_.size() >= count;
  };
  mutex_.Await(absl::Condition(&have_come));
}

Arrival FakeConnection::arrival(size_t number) const {
  absl::MutexLock lock(&mutex_);
  return kept_.at(number).arrival;
}

void FakeConnection::Answer(size_t number, CallResult result) {
  const Inference* inference = nullptr;
  Done done;
  {
    absl::MutexLock lock(&mutex_);
    inference = kept_.at(number).arrival.inference;
    done = std::move(kept_.at(number).done);
  }
  if (result.status.ok()) {
    FakeCompute(*inference);
    num_elements_done_ += inference->num_elements();
  }
  std::move(done)(std::move(result));
}

void FakeConnection::AnswerOnQueue(size_t number, const CallResult& result) {
  Timer::Start(arrival(number).context.queue, absl::Now(),
               [this, number, result] { Answer(number, result); });
}

CallResult ResultOf(absl::Status status) {
  CallResult result;
  result.status = std::move(status);
  result.server = 0;
  result.statistics.num_messages = 1;
  return result;
}

TestCall::TestCall(Shape shape, uint32_t seed, size_t num_inputs, Dtype dtype) {
  int64_t num_elements = 1;
  for (const int64_t dim : shape) num_elements *= dim;
  const auto size = static_cast<size_t>(num_elements * ElementBytes(dtype));
  const size_t num_outputs = num_inputs == 3 ? 3 : 1;
  model_ = std::string(num_inputs == 3 ? "swiglu_backward_" : "swiglu_forward_") +
           std::string(DatatypeName(dtype));
  for (size_t k = 0; k < num_inputs; ++k) {
    inputs_.push_back(Pattern(size, 3 * seed + static_cast<uint32_t>(k)));
  }
  outputs_.assign(num_outputs, std::string(size, '?'));
  inference_.model = model_;
  inference_.dtype = dtype;
  if (num_inputs == 1) inference_.row_elements = shape.back();
  inference_.shape = std::move(shape);
  for (size_t k = 0; k < num_inputs; ++k) {
    inference_.inputs.push_back({kFakeInputs[3 - num_inputs + k], AsBytes(inputs_[k])});
  }
  for (size_t k = 0; k < num_outputs; ++k) {
    inference_.outputs.push_back({kFakeOutputs[k], AsWritableBytes(outputs_[k])});
  }
}

void TestCall::Start(Connection& connection) {
  CallContext context{TimeLimit(timeout), &options};
  context.cancellation = &cancellation_;
  context.return_pushback = return_pushback;
  context.paid_retries = paid_retries;
  connection.StartInfer(inference_, context, [this](CallResult result) {
    result_ = std::move(result);
    has_ended_.Notify();
  });
}

bool TestCall::IsRight() const {
  Inference inference = inference_;
  std::vector<std::string> expected = outputs_;
  for (size_t k = 0; k < expected.size(); ++k) {
    inference.outputs[k].bytes = AsWritableBytes(expected[k]);
  }
  FakeCompute(inference);
  return expected == outputs_;
}

}  // namespace swiglu::client
