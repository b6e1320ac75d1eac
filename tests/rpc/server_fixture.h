// SPDX-License-Identifier: Apache-2.0
//
// The whole server graph in one process, behind a real port on the loopback, with its clients; and
// what holds after every test of it.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "grpcpp/create_channel.h"
#include "grpcpp/generic/generic_stub.h"
#include "grpcpp/security/credentials.h"
#include "gtest/gtest.h"
#include "proto/health.grpc.pb.h"
#include "proto/inference.grpc.pb.h"
#include "server/batching/admission.h"
#include "server/core/executor.h"
#include "server/core/model_registry.h"
#include "server/core/observer.h"
#include "server/core/statistics.h"
#include "server/server.h"
#include "tests/rpc/requests.h"
#include "tests/rpc/test_doubles.h"

namespace swiglu::server {

struct TestServerOptions {
  AdmissionOptions admission;
  BatchFormerOptions batching;
  InferServiceOptions infer;
  // More than one, so that events move between threads as they do in the program.
  int io_threads = 2;
  std::string address = "127.0.0.1:0";
  StallLimit stall_limit;
  absl::Duration tick = absl::Seconds(1);
  int64_t max_connections = 4096;
  RegionLimits regions = {};
  RegionOpener* region_opener = nullptr;
  // Beside the six.
  std::vector<Model> other_models = {};
  std::function<void()> stopping = [] {};
  bool loads_weights = false;
  MlpReloader* mlp_reloader = nullptr;
};

// The server over an executor, with its clients.
class TestServer {
 public:
  // `executor` must outlive it.
  explicit TestServer(Executor* executor, TestServerOptions options = {})
      : models(std::move(options.other_models)),
        statistics(models),
        observers_({&statistics, &observer}),
        server_({.version = "1.2.3",
                 .admission = options.admission,
                 .batching = options.batching,
                 .infer = options.infer,
                 .stall_limit = options.stall_limit,
                 .regions = options.regions,
                 .mlp_reloader = options.mlp_reloader,
                 .stopping = options.stopping,
                 .loads_weights = options.loads_weights,
                 .rpc = {.address = options.address,
                         .max_connections = options.max_connections,
                         .io_threads = options.io_threads,
                         .tick = options.tick}},
                &models, executor, &observers_, &statistics, options.region_opener) {
    const absl::Status started = server_.Start();
    EXPECT_TRUE(started.ok()) << started;
    rpc = &server_.rpc();
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
    server_.StopBeingReady();
    server_.StopTakingRequests();
  }

  void SetLoaded() { server_.SetLoaded(); }

  // True once nothing is charged to the budget and no place in the queue is taken.
  bool AwaitIdle() {
    return Eventually([this] {
      return admission.used_bytes(MemoryKind::kReceive) == 0 &&
             admission.used_bytes(MemoryKind::kStaging) == 0 &&
             admission.used_bytes(MemoryKind::kResponse) == 0 && admission.queued_requests() == 0 &&
             server_.batcher().inflight_requests() == 0;
    });
  }

  ActiveRequests& active() { return server_.active(); }
  InferService& infer() { return server_.infer(); }
  const Batcher& batcher() { return server_.batcher(); }
  const RegionRegistry& regions() const { return server_.regions(); }
  const MessageWatch& watch() const { return server_.message_watch(); }

  const ModelRegistry models;
  Statistics statistics;
  WaitableObserver observer;

 private:
  ObserverList observers_;
  Server server_;

 public:
  Admission& admission = server_.admission();
  Health& health = server_.health();
  Connections& connections = server_.connections();
  RpcServer* rpc = nullptr;
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

// A server over an executor that holds its batches. Whatever a test does, the server serves on and
// nothing is left behind.
class HoldingServerTest : public testing::Test {
 protected:
  explicit HoldingServerTest(int num_lanes = 1, TestServerOptions options = {})
      : executor_(num_lanes), server_(&executor_, std::move(options)) {}
  ~HoldingServerTest() override {
    executor_.Release();
    if (!server_.admission.draining()) {
      EXPECT_TRUE(Infer(server_, GoodRequest(kForwardFp16, {4})).status.ok());
    }
    EXPECT_TRUE(server_.AwaitIdle());
    EXPECT_TRUE(Eventually([this] { return executor_.counting_pool().num_live() == 0; }));
    EXPECT_EQ(server_.active().WaitUntilNone(kPatience), 0);
  }

  HoldingExecutor executor_;
  TestServer server_;
};

#define EXPECT_CALL_STATUS(actual, expected_code, expected_message)                        \
  do {                                                                                     \
    const grpc::Status actual_status = (actual);                                           \
    EXPECT_EQ(actual_status.error_code(), expected_code) << actual_status.error_message(); \
    EXPECT_EQ(actual_status.error_message(), expected_message);                            \
  } while (false)

}  // namespace swiglu::server
