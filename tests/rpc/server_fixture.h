// SPDX-License-Identifier: Apache-2.0
//
// The whole server graph in one process, behind a real port on the loopback, and what the tests
// need on both of its sides: an executor that holds its batches, an observer that can be waited
// for, clients.
#pragma once

#include <atomic>
#include <cstdlib>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "grpcpp/create_channel.h"
#include "grpcpp/generic/generic_stub.h"
#include "grpcpp/security/credentials.h"
#include "gtest/gtest.h"
#include "proto/health.grpc.pb.h"
#include "proto/inference.grpc.pb.h"
#include "server/batching/admission.h"
#include "server/batching/batcher.h"
#include "server/batching/executor.h"
#include "server/batching/observer.h"
#include "server/batching/statistics.h"
#include "server/rpc/active_requests.h"
#include "server/rpc/control_service.h"
#include "server/rpc/health.h"
#include "server/rpc/infer_service.h"
#include "server/rpc/router.h"
#include "server/rpc/rpc_server.h"
#include "tests/rpc/requests.h"

namespace swiglu::server {

// The longest that a test waits for anything. It is reached only by a test that fails.
inline constexpr absl::Duration kPatience = absl::Seconds(20);

// Looks at `condition`, which nobody announces, until it holds. False if it never does.
inline bool Eventually(const std::function<bool()>& condition) {
  const absl::Time end = absl::Now() + kPatience;
  while (!condition()) {
    if (absl::Now() > end) return false;
    std::this_thread::yield();
  }
  return true;
}

// Plain memory, counted. Thread-safe.
class CountingSlabPool final : public SlabPool {
 public:
  absl::StatusOr<Slab> Acquire(size_t size_bytes) override {
    if (fail_.load()) return absl::ResourceExhaustedError("no memory for the test");
    const size_t size = (size_bytes + kSlabAlignment - 1) / kSlabAlignment * kSlabAlignment;
    auto* data = static_cast<std::byte*>(std::aligned_alloc(kSlabAlignment, size));
    num_live_.fetch_add(1);
    return Slab{std::shared_ptr<std::byte>(data,
                                           [this](std::byte* memory) {
                                             std::free(memory);
                                             num_live_.fetch_sub(1);
                                           }),
                size};
  }

  // From here on there is no memory, or there is again.
  void SetFailing(bool fail) { fail_.store(fail); }
  int num_live() const { return num_live_.load(); }

 private:
  std::atomic<bool> fail_{false};
  std::atomic<int> num_live_{0};
};

// Holds every batch until it is told how to end it. The outputs are the inputs: it computes
// nothing. Thread-safe.
class HoldingExecutor final : public Executor {
 public:
  explicit HoldingExecutor(int num_lanes = 1) : num_lanes_(num_lanes) {}

  int num_lanes() const override { return num_lanes_; }
  int max_segments() const override { return 256; }
  void Run(const Batch& batch, Done done) override {
    absl::ReleasableMutexLock lock(&mutex_);
    batch_sizes_.push_back(batch.segments.size());
    if (!released_) {
      held_.push_back(std::move(done));
      return;
    }
    lock.Release();
    done(Execution());
  }
  bool healthy() const override { return healthy_.load(); }
  SlabPool& slab_pool() override { return slab_pool_; }
  std::string description() const override { return "holding"; }

  // Waits until so many batches are held. False if they do not come.
  bool AwaitHeld(size_t count = 1) {
    const auto held = [this, count]()
                          ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return held_.size() >= count; };
    absl::MutexLock lock(&mutex_);
    return mutex_.AwaitWithTimeout(absl::Condition(&held), kPatience);
  }
  // Ends the oldest batch that is held, or the one at `index`. REQUIRES: there is one.
  void Complete(absl::Status status = absl::OkStatus(), size_t index = 0) {
    Done done;
    {
      absl::MutexLock lock(&mutex_);
      done = std::move(held_[index]);
      held_.erase(held_.begin() + index);
    }
    Execution execution;
    execution.status = std::move(status);
    done(execution);
  }
  // Ends what is held, and from here on every batch at once.
  void Release() {
    std::vector<Done> held;
    {
      absl::MutexLock lock(&mutex_);
      released_ = true;
      held = std::move(held_);
      held_.clear();
    }
    for (Done& done : held) done(Execution());
  }
  void Fail() { healthy_.store(false); }

  // Segments of every batch so far.
  std::vector<size_t> batch_sizes() const {
    absl::MutexLock lock(&mutex_);
    return batch_sizes_;
  }
  CountingSlabPool& counting_pool() { return slab_pool_; }

 private:
  const int num_lanes_;
  CountingSlabPool slab_pool_;
  std::atomic<bool> healthy_{true};
  mutable absl::Mutex mutex_;
  bool released_ ABSL_GUARDED_BY(mutex_) = false;
  std::vector<Done> held_ ABSL_GUARDED_BY(mutex_);
  std::vector<size_t> batch_sizes_ ABSL_GUARDED_BY(mutex_);
};

// Writes down what it is told; a test can wait for it. Thread-safe.
class WaitableObserver final : public Observer {
 public:
  void RequestFinished(const RequestRecord& record) override { Keep(finished_, record); }
  void RequestSent(const Model* model, std::chrono::nanoseconds,
                   std::chrono::nanoseconds) override {
    Keep(sent_, model);
  }
  void RequestRejected(Rejection reason) override { Keep(rejected_, reason); }
  void BatchFinished(const BatchRecord& record) override { Keep(batches_, record); }
  void DeviceFailed(int, DeviceError) override {}

  // Waits for that many finished requests, and returns all there are.
  std::vector<RequestRecord> AwaitFinished(size_t count) { return Await(finished_, count); }
  std::vector<const Model*> AwaitSent(size_t count) { return Await(sent_, count); }
  std::vector<Rejection> AwaitRejected(size_t count) { return Await(rejected_, count); }
  std::vector<BatchRecord> batches() { return Await(batches_, 0); }
  size_t num_finished() { return Await(finished_, 0).size(); }
  // The codes of all finished requests, in order.
  std::vector<absl::StatusCode> AwaitCodes(size_t count) {
    std::vector<absl::StatusCode> codes;
    for (const RequestRecord& record : AwaitFinished(count)) codes.push_back(record.code);
    return codes;
  }

 private:
  template <typename T>
  void Keep(std::vector<T>& list, const T& value) {
    absl::MutexLock lock(&mutex_);
    list.push_back(value);
  }
  template <typename T>
  std::vector<T> Await(const std::vector<T>& list, size_t count) {
    const auto enough = [&list, count] { return list.size() >= count; };
    absl::MutexLock lock(&mutex_);
    EXPECT_TRUE(mutex_.AwaitWithTimeout(absl::Condition(&enough), kPatience))
        << list.size() << " of " << count;
    return list;
  }

  absl::Mutex mutex_;
  std::vector<RequestRecord> finished_;
  std::vector<const Model*> sent_;
  std::vector<Rejection> rejected_;
  std::vector<BatchRecord> batches_;
};

struct TestServerOptions {
  AdmissionOptions admission;
  InferServiceOptions infer;
  // More than one, so that calls move between queues as they do in the program.
  int io_threads = 2;
  std::string address = "127.0.0.1:0";
};

// The graph of the program over an executor, in the same order, with its clients.
class TestServer {
 public:
  // `executor` must outlive it.
  explicit TestServer(Executor* executor, TestServerOptions options = {})
      : observers_({&statistics, &observer}),
        admission(options.admission),
        batcher_(BatchFormerOptions(), executor, &observers_),
        health([executor] { return executor->healthy(); }),
        infer_(options.infer, &admission, &executor->slab_pool(), &batcher_, &observers_),
        control_({"1.2.3", executor->description(), false, executor->num_lanes()}, &health,
                 &statistics),
        router_(&infer_, &control_, &health, &active_, &observers_) {
    auto started = RpcServer::Start({options.address, options.io_threads}, &router_);
    EXPECT_TRUE(started.ok()) << started.status();
    rpc = *std::move(started);
    channel = NewChannel();
    stub = inference::GRPCInferenceService::NewStub(channel);
    health_stub = grpc::health::v1::Health::NewStub(channel);
  }

  // A connection of its own.
  std::shared_ptr<grpc::Channel> NewChannel() const {
    grpc::ChannelArguments arguments;
    arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
    arguments.SetInt(GRPC_ARG_ENABLE_RETRIES, 0);
    arguments.SetMaxReceiveMessageSize(-1);
    return grpc::CreateCustomChannel(rpc->address(), grpc::InsecureChannelCredentials(), arguments);
  }

  // What the program does at the first signal.
  void StartDrain() {
    health.StopServing();
    rpc->Broadcast(ServerEvent::kHealthChanged);
    admission.StartDrain();
    rpc->Broadcast(ServerEvent::kDraining);
  }

  // True once nothing is charged to the budget and no place in the queue is taken.
  bool AwaitIdle() {
    return Eventually([this] {
      return admission.used_bytes(MemoryKind::kReceive) == 0 &&
             admission.used_bytes(MemoryKind::kStaging) == 0 &&
             admission.used_bytes(MemoryKind::kResponse) == 0 && admission.queued_requests() == 0 &&
             batcher_.inflight_requests() == 0;
    });
  }

  ActiveRequests& active() { return active_; }
  InferService& infer() { return infer_; }

  Statistics statistics;
  WaitableObserver observer;

 private:
  ObserverList observers_;

 public:
  Admission admission;

 private:
  Batcher batcher_;

 public:
  Health health;

 private:
  InferService infer_;
  ControlService control_;
  ActiveRequests active_;
  Router router_;

 public:
  std::unique_ptr<RpcServer> rpc;
  std::shared_ptr<grpc::Channel> channel;
  std::unique_ptr<inference::GRPCInferenceService::Stub> stub;
  std::unique_ptr<grpc::health::v1::Health::Stub> health_stub;
};

// A context whose deadline only a test that fails reaches.
class PatientContext : public grpc::ClientContext {
 public:
  PatientContext() { set_deadline(absl::ToChronoTime(absl::Now() + kPatience)); }
};

// What a unary call gave.
template <typename Response>
struct Result {
  grpc::Status status;
  Response response;
  std::multimap<std::string, std::string> trailers;
};

inline std::multimap<std::string, std::string> Trailers(const grpc::ClientContext& context) {
  std::multimap<std::string, std::string> trailers;
  for (const auto& [key, value] : context.GetServerTrailingMetadata()) {
    trailers.emplace(std::string(key.data(), key.size()), std::string(value.data(), value.size()));
  }
  return trailers;
}

inline Result<inference::ModelInferResponse> Infer(TestServer& server,
                                                   const inference::ModelInferRequest& request) {
  Result<inference::ModelInferResponse> result;
  PatientContext context;
  result.status = server.stub->ModelInfer(&context, request, &result.response);
  result.trailers = Trailers(context);
  return result;
}

// A unary call of any method with any bytes. The response is "" on error.
inline Result<std::string> CallRaw(TestServer& server, const std::string& method,
                                   const std::string& request) {
  grpc::GenericStub generic(server.channel);
  grpc::CompletionQueue queue;
  PatientContext context;
  const grpc::Slice slice(request);
  auto call = generic.PrepareUnaryCall(&context, method, grpc::ByteBuffer(&slice, 1), &queue);
  Result<std::string> result;
  grpc::ByteBuffer response;
  call->StartCall();
  call->Finish(&response, &result.status, nullptr);
  void* tag = nullptr;
  bool ok = false;
  EXPECT_TRUE(queue.Next(&tag, &ok));
  if (result.status.ok()) result.response = ToString(response);
  result.trailers = Trailers(context);
  return result;
}

// A ModelInfer on a thread of its own.
class BackgroundInfer {
 public:
  BackgroundInfer(TestServer& server, inference::ModelInferRequest request,
                  absl::Duration deadline = kPatience)
      : thread_([this, &server, request = std::move(request), deadline] {
          context_.set_deadline(absl::ToChronoTime(absl::Now() + deadline));
          result_.status = server.stub->ModelInfer(&context_, request, &result_.response);
          result_.trailers = Trailers(context_);
        }) {}
  ~BackgroundInfer() {
    if (thread_.joinable()) thread_.join();
  }

  void Cancel() { context_.TryCancel(); }
  const Result<inference::ModelInferResponse>& Wait() {
    if (thread_.joinable()) thread_.join();
    return result_;
  }

 private:
  grpc::ClientContext context_;
  Result<inference::ModelInferResponse> result_;
  std::thread thread_;
};

#define EXPECT_CALL_STATUS(actual, expected_code, expected_message)                        \
  do {                                                                                     \
    const grpc::Status actual_status = (actual);                                           \
    EXPECT_EQ(actual_status.error_code(), expected_code) << actual_status.error_message(); \
    EXPECT_EQ(actual_status.error_message(), expected_message);                            \
  } while (false)

}  // namespace swiglu::server
