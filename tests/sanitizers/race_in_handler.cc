// SPDX-License-Identifier: Apache-2.0
//
// A seeded race in the server: two I/O threads, each in the middle of a request, increment a
// counter that nothing orders. expect_race.sh passes only if ThreadSanitizer sees it.
#include <atomic>
#include <memory>
#include <thread>
#include <utility>
#include <vector>

#include "gtest/gtest.h"
#include "tests/rpc/server_fixture.h"

namespace swiglu::server {
namespace {

// Every handler asks for its memory on the thread that polls. Lets none go on before two of them
// have come, so that nothing else can have put one after the other.
class RacingSlabPool final : public SlabPool {
 public:
  size_t SlabBytes(size_t size_bytes) const override { return memory_.SlabBytes(size_bytes); }
  absl::StatusOr<Slab> Acquire(size_t size_bytes) override {
    // Relaxed, or this would itself be an order.
    num_arrived_.fetch_add(1, std::memory_order_relaxed);
    while (num_arrived_.load(std::memory_order_relaxed) < 2) std::this_thread::yield();
    SeededRaceInHandler();
    return memory_.Acquire(size_bytes);
  }

 private:
  // The name that the report must have.
  [[gnu::noinline]] void SeededRaceInHandler() { ++num_slabs_; }

  CountingSlabPool memory_;
  std::atomic<int> num_arrived_{0};
  int num_slabs_ = 0;
};

class RacingExecutor final : public Executor {
 public:
  int num_lanes() const override { return 1; }
  int max_segments() const override { return 256; }
  int64_t max_batch_bytes() const override { return int64_t{1} << 30; }
  void Run(const Batch&, Done done) override { done(Execution()); }
  bool healthy() const override { return true; }
  SlabPool& slab_pool() override { return slab_pool_; }
  std::string description() const override { return "racing"; }

 private:
  RacingSlabPool slab_pool_;
};

// Requests of 1 MiB are long work: while one thread has one, another has the next.
TEST(SeededRaceTest, IsMadeInAHandler) {
  RacingExecutor executor;
  TestServer server(&executor);
  std::vector<std::thread> callers;
  for (int i = 0; i < 16; ++i) {
    callers.emplace_back([&server] {
      auto stub = inference::GRPCInferenceService::NewStub(server.NewChannel());
      inference::ModelInferResponse response;
      PatientContext context;
      EXPECT_TRUE(
          stub->ModelInfer(&context, GoodRequest(kForwardFp16, {256 << 10}), &response).ok());
    });
  }
  for (std::thread& caller : callers) caller.join();
  EXPECT_TRUE(server.AwaitIdle());
}

}  // namespace
}  // namespace swiglu::server
