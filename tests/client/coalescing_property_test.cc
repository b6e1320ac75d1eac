// SPDX-License-Identifier: Apache-2.0
//
// Calls of many threads that are joined, against what each of them would get alone.
#include <atomic>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/strings/match.h"
#include "absl/synchronization/mutex.h"
#include "client/event_queue.h"
#include "gtest/gtest.h"
#include "tests/client/coalescing_fixture.h"
#include "tests/client/fake_connection.h"

namespace swiglu::client {
namespace {

// A server whose answer to joined calls follows from its answers to each: it refuses messages
// that have a certain byte, or more bytes than it takes. Answers on threads of its own, in any
// order.
class ElementwiseServer {
 public:
  static constexpr size_t kMaxTensorBytes = 600;
  static constexpr char kBadByte = '\x5b';

  ElementwiseServer()
      : connection_([this](size_t number) {
          absl::MutexLock lock(&mutex_);
          waiting_.push_back(number);
        }) {}
  // Answers from now on.
  void Begin() {
    for (uint32_t i = 0; i < 2; ++i) threads_.emplace_back([this, i] { Serve(i); });
  }
  ~ElementwiseServer() {
    {
      absl::MutexLock lock(&mutex_);
      is_ending_ = true;
    }
    for (std::thread& thread : threads_) thread.join();
  }

  Connection* connection() { return &connection_; }

  // The answer to inputs of that content.
  static absl::Status AnswerTo(const std::string& input) {
    if (input.size() > kMaxTensorBytes) return absl::ResourceExhaustedError("too large");
    if (absl::StrContains(input, kBadByte)) return absl::InvalidArgumentError("bad byte");
    return absl::OkStatus();
  }

 private:
  void Serve(uint32_t seed) {
    std::minstd_rand random(seed + 1);
    while (true) {
      size_t number = 0;
      {
        absl::MutexLock lock(&mutex_);
        const auto has_work = [this] {
          mutex_.AssertHeld();
          return is_ending_ || !waiting_.empty();
        };
        mutex_.Await(absl::Condition(&has_work));
        if (waiting_.empty()) return;
        const size_t chosen = random() % waiting_.size();
        std::swap(waiting_[chosen], waiting_.back());
        number = waiting_.back();
        waiting_.pop_back();
      }
      connection_.Answer(number, ResultOf(AnswerTo(connection_.arrival(number).inputs[0])));
    }
  }

  absl::Mutex mutex_;
  std::vector<size_t> waiting_ ABSL_GUARDED_BY(mutex_);
  bool is_ending_ ABSL_GUARDED_BY(mutex_) = false;
  FakeConnection connection_;
  std::vector<std::thread> threads_;
};

TEST(CoalescingPropertyTest, BitsAndErrorsAreThoseOfCallsMadeAlone) {
  constexpr int kNumThreads = 4, kCallsPerThread = 200, kWindow = 16;
  ElementwiseServer server;
  EventThreads threads(2, [] {});
  CoalescingOptions options = OneAway();
  options.max_away = 2;
  options.max_message_calls = 20;
  CoalescingConnection connection(server.connection(), options, &threads);
  std::atomic<int64_t> num_joined = 0;
  const auto call_many = [&](uint32_t seed) {
    std::minstd_rand random(seed);
    std::vector<std::unique_ptr<TestCall>> calls;
    std::vector<bool> is_cancelled;
    const auto end_all = [&] {
      for (size_t i = 0; i < calls.size(); ++i) {
        const absl::Status status = calls[i]->status();
        const absl::Status alone = ElementwiseServer::AnswerTo(calls[i]->input(0));
        if (is_cancelled[i] && absl::IsCancelled(status)) continue;
        EXPECT_EQ(status, alone);
        EXPECT_EQ(calls[i]->IsRight(), status.ok());
        if (calls[i]->Wait().statistics.num_joined > 1) ++num_joined;
      }
      calls.clear();
      is_cancelled.clear();
    };
    for (int i = 0; i < kCallsPerThread; ++i) {
      calls.push_back(std::make_unique<TestCall>(Shape{1 + static_cast<int64_t>(random() % 120)},
                                                 static_cast<uint32_t>(random())));
      // Most calls have even bytes, which are all good.
      for (char& c : calls.back()->mutable_input(0)) c = static_cast<char>(c & ~1);
      if (random() % 10 == 0) calls.back()->mutable_input(0)[0] = ElementwiseServer::kBadByte;
      is_cancelled.push_back(random() % 10 == 0);
      calls.back()->Start(connection);
      if (is_cancelled.back()) calls.back()->cancellation().Cancel();
      if (calls.size() == kWindow) end_all();
    }
    end_all();
  };
  // Without answers, calls gather.
  std::vector<std::unique_ptr<TestCall>> first;
  for (uint32_t i = 0; i < kWindow; ++i) {
    first.push_back(std::make_unique<TestCall>(Shape{10}, i));
    for (char& c : first.back()->mutable_input(0)) c = static_cast<char>(c & ~1);
    first.back()->Start(connection);
  }
  server.Begin();
  for (const std::unique_ptr<TestCall>& call : first) {
    EXPECT_EQ(call->status(), absl::OkStatus());
    EXPECT_TRUE(call->IsRight());
    if (call->Wait().statistics.num_joined > 1) ++num_joined;
  }
  EXPECT_GT(num_joined, 0);
  std::vector<std::thread> callers;
  for (uint32_t i = 0; i < kNumThreads; ++i) callers.emplace_back(call_many, i + 1);
  for (std::thread& caller : callers) caller.join();
  threads.Stop();
}

}  // namespace
}  // namespace swiglu::client
