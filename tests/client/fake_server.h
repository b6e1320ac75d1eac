// SPDX-License-Identifier: Apache-2.0
//
// A gRPC server inside the test's process that answers what the test tells it to, right or wrong.
#pragma once

#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "absl/types/optional.h"
#include "grpcpp/generic/async_generic_service.h"
#include "grpcpp/grpcpp.h"
#include "proto/health.pb.h"
#include "proto/inference.pb.h"

namespace swiglu::client {

// What came in.
struct FakeCall {
  std::string method;  // the last part of its path
  std::multimap<std::string, std::string> metadata;
  std::string message;
  absl::Time deadline;  // as the client told it
  std::string peer;     // the client's end of the connection
  int rpc = 0;          // differs between calls of gRPC, not between messages of a stream
};

// What goes back.
struct FakeReply {
  grpc::Status status;
  std::string message;                          // sent if the status is OK
  std::map<std::string, std::string> trailers;  // sent with the status
  bool never = false;                           // no answer at all, until the server ends
  bool no_message = false;                      // the status alone, even if it is OK
  bool twice = false;                           // the message two times; only on a stream
};

// A reply with that message.
FakeReply Answer(const google::protobuf::Message& message);

// The weights that EchoInfer names.
inline constexpr char kFakeWeights[] =
    "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

// Sets the parameter `weights_sha256`.
void SetWeights(const std::string& sha256, inference::ModelInferResponse* response);

// What a server that computes h = e, or h = DW, df = e, de = g, would answer to a ModelInfer. An
// MLP's y and dx are x, computed by kFakeWeights.
inference::ModelInferResponse EchoInfer(const inference::ModelInferRequest& request);
FakeReply EchoInfer(const FakeCall& call);

using FakeHealth = grpc::health::v1::HealthCheckResponse::ServingStatus;

struct FakeServerOptions {
  // What it tells those who watch its health. nullopt: such calls are UNIMPLEMENTED.
  absl::optional<FakeHealth> health = absl::nullopt;
  // How old a connection gets before the server asks the client to leave it (GOAWAY).
  absl::Duration max_connection_age = absl::InfiniteDuration();
  // Whether it takes messages on streams. If not, ModelStreamInfer is UNIMPLEMENTED, and the
  // handler does not see it. If so, the handler sees each message as a call. Its answer is sent on
  // the stream, and its error ends the stream.
  bool takes_streams = false;
};

// Serves from construction to destruction. The handler runs on the server's only thread. It does
// not get the calls of the health service.
class FakeServer {
 public:
  using Handler = std::function<FakeReply(const FakeCall&)>;

  // `address` is HOST:PORT, a free port by default.
  explicit FakeServer(Handler handler, const std::string& address = "127.0.0.1:0",
                      const FakeServerOptions& options = {});
  ~FakeServer();

  // HOST:PORT. The host is 127.0.0.1.
  const std::string& address() const { return address_; }

  // Tells those who watch.
  void SetHealth(FakeHealth health);
  // How many have begun to watch.
  const std::atomic<int>& num_watches() const { return num_watches_; }
  // How many streams have ended that had a message.
  const std::atomic<int>& num_ended_streams() const { return num_ended_streams_; }

 private:
  class Call;

  void Serve();
  void EndWatch(Call* call);

  const Handler handler_;
  const bool takes_streams_;
  std::atomic<int> num_watches_ = 0;
  std::atomic<int> num_ended_streams_ = 0;
  int num_rpcs_ = 0;  // of its thread
  absl::Mutex mutex_;
  absl::optional<FakeHealth> health_ ABSL_GUARDED_BY(mutex_);
  std::set<Call*> watches_ ABSL_GUARDED_BY(mutex_);
  bool is_ending_ ABSL_GUARDED_BY(mutex_) = false;
  std::string address_;
  grpc::AsyncGenericService service_;
  std::unique_ptr<grpc::ServerCompletionQueue> queue_;
  std::unique_ptr<grpc::Server> server_;
  std::thread thread_;
};

}  // namespace swiglu::client
