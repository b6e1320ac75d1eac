// SPDX-License-Identifier: Apache-2.0
//
// One client, many threads, every form of call at once.
#include <atomic>
#include <cstdint>
#include <deque>
#include <string>
#include <thread>
#include <vector>

#include "absl/synchronization/blocking_counter.h"
#include "gtest/gtest.h"
#include "swiglu/client.h"
#include "tests/client/bytes.h"
#include "tests/client/client_fixture.h"
#include "tests/client/fake_server.h"

namespace swiglu::client {
namespace {

constexpr int kNumCallers = 32;
constexpr int kCallsOfEachForm = 6;

// Small calls, which are joined, and some above chunk_bytes, which are split.
int64_t NumElementsOf(int number) { return number % 8 == 7 ? 20'000 : 1 + 37 * (number % 8); }

// The tensors of calls of one thread, which all differ.
class CallerTensors {
 public:
  struct Pair {
    std::string e, g;
    Shape shape;
    TensorView e_view() const { return {Dtype::kFp16, shape, AsBytes(e)}; }
    TensorView g_view() const { return {Dtype::kFp16, shape, AsBytes(g)}; }
  };

  explicit CallerTensors(int caller) : seed_(static_cast<uint32_t>(caller) << 16) {}

  const Pair& Next() {
    const int64_t num_elements = NumElementsOf(static_cast<int>(seed_ >> 16) + num_made_);
    ++num_made_;
    const auto size = static_cast<size_t>(num_elements * ElementBytes(Dtype::kFp16));
    pairs_.push_back({Pattern(size, ++seed_), Pattern(size, ++seed_), {num_elements}});
    return pairs_.back();
  }

 private:
  uint32_t seed_;
  int num_made_ = 0;
  std::deque<Pair> pairs_;
};

// What the server answers: h is e.
bool IsRightResult(const absl::StatusOr<Tensor>& h, const CallerTensors::Pair& pair) {
  return h.ok() && h->shape() == pair.shape && AsText(h->bytes()) == pair.e;
}

TEST(ClientThreadsTest, EveryCallGetsItsOwnResult) {
  FakeServer server([](const FakeCall& call) { return EchoInfer(call); });
  const auto client =
      Connect(server.address(), {.max_message_bytes = 32 << 10, .chunk_bytes = 32 << 10});
  std::atomic<int> num_right = 0;
  const auto call_many = [&](int caller) {
    CallerTensors tensors(caller);
    absl::BlockingCounter num_called(kCallsOfEachForm);
    struct Started {
      Future<absl::StatusOr<Tensor>> future;
      const CallerTensors::Pair* pair;
    };
    std::vector<Started> started;
    for (int i = 0; i < kCallsOfEachForm; ++i) {
      const CallerTensors::Pair& called = tensors.Next();
      client->ForwardAsync(called.e_view(), called.g_view(), [&](const absl::StatusOr<Tensor>& h) {
        num_right += IsRightResult(h, called) ? 1 : 0;
        num_called.DecrementCount();
      });
      const CallerTensors::Pair& future = tensors.Next();
      started.push_back({client->ForwardAsync(future.e_view(), future.g_view()), &future});
      const CallerTensors::Pair& pair = tensors.Next();
      num_right += IsRightResult(client->Forward(pair.e_view(), pair.g_view()), pair) ? 1 : 0;
    }
    for (Started& call : started) {
      num_right += IsRightResult(call.future.Get(), *call.pair) ? 1 : 0;
    }
    num_called.Wait();
  };
  std::vector<std::thread> callers;
  for (int i = 0; i < kNumCallers; ++i) callers.emplace_back(call_many, i);
  for (std::thread& caller : callers) caller.join();
  EXPECT_EQ(num_right, kNumCallers * kCallsOfEachForm * 3);
}

// Streams are opened by all threads, and closed with the client.
TEST(ClientThreadsTest, CallsOverStreamsGetTheirOwnResults) {
  std::atomic<int> num_streamed = 0;
  FakeServerOptions server_options;
  server_options.takes_streams = true;
  FakeServer server(
      [&](const FakeCall& call) {
        if (call.method == "ModelStreamInfer") ++num_streamed;
        return EchoInfer(call);
      },
      "127.0.0.1:0", server_options);
  constexpr int kNumCalls = 40;
  std::atomic<int> num_right = 0;
  {
    const auto client = Connect(server.address(), {.coalesce_bytes = 0});
    std::vector<std::thread> callers;
    for (int caller = 0; caller < kNumCallers; ++caller) {
      callers.emplace_back([&, caller] {
        CallerTensors tensors(caller);
        for (int i = 0; i < kNumCalls; ++i) {
          const CallerTensors::Pair& pair = tensors.Next();
          num_right += IsRightResult(client->Forward(pair.e_view(), pair.g_view()), pair) ? 1 : 0;
        }
      });
    }
    for (std::thread& caller : callers) caller.join();
  }
  EXPECT_EQ(num_right, kNumCallers * kNumCalls);
  EXPECT_GT(num_streamed, 0);
}

// Some futures are given up while their calls are under way.
TEST(ClientThreadsTest, CallsThatAreGivenUpHarmNoOthers) {
  FakeServer server([](const FakeCall& call) { return EchoInfer(call); });
  const auto client =
      Connect(server.address(), {.max_message_bytes = 32 << 10, .chunk_bytes = 32 << 10});
  std::atomic<int> num_right = 0;
  const auto call_many = [&](int caller) {
    for (int i = 0; i < kCallsOfEachForm; ++i) {
      CallerTensors tensors(caller * kCallsOfEachForm + i);
      const CallerTensors::Pair& given_up = tensors.Next();
      const CallerTensors::Pair& kept = tensors.Next();
      auto future = client->ForwardAsync(given_up.e_view(), given_up.g_view());
      auto other = client->ForwardAsync(kept.e_view(), kept.g_view());
      future = {};
      num_right += IsRightResult(other.Get(), kept) ? 1 : 0;
    }
  };
  std::vector<std::thread> callers;
  for (int i = 0; i < kNumCallers; ++i) callers.emplace_back(call_many, i);
  for (std::thread& caller : callers) caller.join();
  EXPECT_EQ(num_right, kNumCallers * kCallsOfEachForm);
}

}  // namespace
}  // namespace swiglu::client
