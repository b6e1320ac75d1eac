// SPDX-License-Identifier: Apache-2.0
//
// A connection that keeps what it is given until the test answers it, and calls to make over a
// connection. So a decorator is tested alone, without gRPC.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include "absl/time/time.h"
#include "absl/types/optional.h"
#include "swiglu/cancellation.h"
#include "swiglu/connection.h"
#include "swiglu/inference.h"
#include "swiglu/options.h"

namespace swiglu::client {

// Byte i of output k depends on byte i of every input, and on k.
void FakeCompute(const Inference& inference);

// What has come to a FakeConnection.
struct Arrival {
  const Inference* inference;  // lives until the answer
  CallContext context;
  // Copies of what the inference has.
  std::string model;
  Shape shape;
  std::vector<std::string> inputs;
  bool wants_statistics;
};

// Thread-safe.
class FakeConnection final : public Connection {
 public:
  // Runs `at_arrival` in each StartInfer, with the number of the arrival. It may answer.
  explicit FakeConnection(std::function<void(size_t)> at_arrival = nullptr)
      : at_arrival_(std::move(at_arrival)) {}

  void StartInfer(const Inference& inference, const CallContext& context, Done done) override;
  int num_servers() const override { return num_servers_; }

  // How many inferences have come, answered ones included.
  size_t num_arrivals() const;
  // Blocks until so many have come.
  void WaitForArrivals(size_t count) const;
  Arrival arrival(size_t number) const;
  // The elements of all inferences that were answered with OK.
  int64_t num_elements_done() const { return num_elements_done_; }

  // Ends an inference on the calling thread. If the status is OK, fills its outputs first.
  void Answer(size_t number, CallResult result = {});
  // The same, as an event of the inference's queue. REQUIRES: it has one.
  void AnswerOnQueue(size_t number, const CallResult& result);

  void set_num_servers(int num_servers) { num_servers_ = num_servers; }

 private:
  struct Kept {
    Arrival arrival;
    Done done;
  };

  const std::function<void(size_t)> at_arrival_;
  int num_servers_ = 1;
  std::atomic<int64_t> num_elements_done_ = 0;
  mutable absl::Mutex mutex_;
  std::deque<Kept> kept_ ABSL_GUARDED_BY(mutex_);
};

// A result with that status, as a server answers.
CallResult ResultOf(absl::Status status);

// One call of a connection: forward with two inputs, backward with three, or an MLP's with one. Its
// model and its tensors are on the heap, so that AddressSanitizer sees who uses them after the test
// has freed the call.
class TestCall {
 public:
  // Calls of different seeds have different inputs.
  TestCall(Shape shape, uint32_t seed, size_t num_inputs = 2, Dtype dtype = Dtype::kFp16);

  // Starts the call. Its time begins now.
  void Start(Connection& connection);

  bool HasEnded() const { return has_ended_.HasBeenNotified(); }
  // Blocks until the call has ended.
  const CallResult& Wait() const {
    has_ended_.WaitForNotification();
    return *result_;
  }
  absl::Status status() const { return Wait().status; }
  // Whether the outputs are those of FakeCompute.
  bool IsRight() const;

  const std::string& input(size_t k) const { return inputs_[k]; }
  std::string& mutable_input(size_t k) { return inputs_[k]; }
  Inference& inference() { return inference_; }
  Cancellation& cancellation() { return cancellation_; }

  // To be set before Start.
  CallOptions options;
  absl::Duration timeout = absl::Minutes(1);
  bool return_pushback = false;
  std::atomic<int>* paid_retries = nullptr;

 private:
  std::string model_;
  std::vector<std::string> inputs_, outputs_;
  Inference inference_;
  Cancellation cancellation_;
  absl::optional<CallResult> result_;
  absl::Notification has_ended_;
};

}  // namespace swiglu::client
