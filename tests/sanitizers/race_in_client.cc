// SPDX-License-Identifier: Apache-2.0
//
// A seeded race in a client: a callback that the library's threads call at once increments a
// counter that nothing orders. expect_race.sh passes only if ThreadSanitizer sees it.
#include <atomic>
#include <thread>
#include <vector>

#include "gtest/gtest.h"
#include "swiglu/client.h"
#include "tests/client/fake_server.h"

namespace swiglu::client {
namespace {

int num_chunks_done = 0;

// The name that the report must have.
[[gnu::noinline]] void SeededRaceInClient() { ++num_chunks_done; }

TEST(SeededRaceTest, IsMadeInAClient) {
  FakeServer server([](const FakeCall& call) { return EchoInfer(call); });
  Options client_options;
  client_options.num_connections = 2;
  client_options.max_message_bytes = client_options.chunk_bytes = 4096;
  auto client = Client::Create(server.address(), client_options);
  ASSERT_TRUE(client.ok()) << client.status();

  // Lets no thread go on before two have come. Relaxed, or this would itself be an order.
  std::atomic<int> num_arrived{0};
  CallOptions options;
  options.on_chunk = [&num_arrived](int64_t, int64_t) {
    num_arrived.fetch_add(1, std::memory_order_relaxed);
    while (num_arrived.load(std::memory_order_relaxed) < 2) std::this_thread::yield();
    SeededRaceInClient();
  };
  const std::vector<std::byte> bytes(16'000);
  const TensorView tensor{Dtype::kFp16, {8'000}, bytes};
  EXPECT_TRUE(client->Forward(tensor, tensor, options).ok());
}

}  // namespace
}  // namespace swiglu::client
