// SPDX-License-Identifier: Apache-2.0
//
// One completion queue, one thread, one small state machine per call.
#include "tests/client/fake_server.h"

#include <chrono>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "grpcpp/alarm.h"

// Only in builds with ThreadSanitizer: tests/sanitizers/tsan_happens_before.cc.
extern "C" {
__attribute__((weak)) void SwigluTestServerBegins();
__attribute__((weak)) void SwigluTestServerEnds();
}

namespace swiglu::client {
namespace {

std::string ToString(const grpc::ByteBuffer& buffer) {
  std::vector<grpc::Slice> slices;
  std::string text;
  if (!buffer.Dump(&slices).ok()) return text;
  for (const grpc::Slice& slice : slices) {
    text.append(reinterpret_cast<const char*>(slice.begin()), slice.size());
  }
  return text;
}

bool IsMlp(const inference::ModelInferRequest& request) {
  return absl::StartsWith(request.model_name(), "mlp_");
}

std::vector<std::string> OutputNames(const inference::ModelInferRequest& request) {
  if (IsMlp(request)) return {request.inputs_size() == 1 ? "y" : "dx"};
  if (request.inputs_size() == 2) return {"h"};
  return {"h", "df", "de"};
}

}  // namespace

FakeReply Answer(const google::protobuf::Message& message) {
  FakeReply reply;
  reply.message = message.SerializeAsString();
  return reply;
}

void SetWeights(const std::string& sha256, inference::ModelInferResponse* response) {
  (*response->mutable_parameters())["weights_sha256"].set_string_param(sha256);
}

inference::ModelInferResponse EchoInfer(const inference::ModelInferRequest& request) {
  const std::vector<std::string> names = OutputNames(request);
  inference::ModelInferResponse response;
  response.set_model_name(request.model_name());
  response.set_model_version("1");
  for (size_t k = 0; k < names.size(); ++k) {
    auto* output = response.add_outputs();
    output->set_name(names[k]);
    output->set_datatype(request.inputs(0).datatype());
    *output->mutable_shape() = request.inputs(0).shape();
    response.add_raw_output_contents(request.raw_input_contents(static_cast<int>(k)));
  }
  if (IsMlp(request)) SetWeights(kFakeWeights, &response);
  return response;
}

FakeReply EchoInfer(const FakeCall& call) {
  inference::ModelInferRequest request;
  if (!request.ParseFromString(call.message)) {
    FakeReply reply;
    reply.status = grpc::Status(grpc::StatusCode::INVALID_ARGUMENT, "malformed ModelInferRequest");
    return reply;
  }
  return Answer(EchoInfer(request));
}

// Arrives, is read, is answered; or watches the server's health. Deletes itself.
class FakeServer::Call {
 public:
  explicit Call(FakeServer* server) : server_(server), stream_(&context_) {
    server_->service_.RequestCall(&context_, &stream_, server_->queue_.get(), server_->queue_.get(),
                                  this);
  }

  void Proceed(bool ok) {
    if (!ok || state_ == State::kAnswered) {
      if (state_ == State::kWatches) server_->EndWatch(this);
      if (is_stream_) {
        ++server_->num_ended_streams_;
        server_->num_ended_streams_.notify_all();
      }
      delete this;
      return;
    }
    if (state_ == State::kWatches) return OnTold();
    if (state_ == State::kAnswersAgain) {
      state_ = State::kAnsweredOnStream;
      return stream_.Write(answer_, this);
    }
    if (state_ == State::kArrived || state_ == State::kAnsweredOnStream) {
      if (state_ == State::kArrived) {
        rpc_ = ++server_->num_rpcs_;
        new Call(server_);
      }
      state_ = State::kRead;
      stream_.Read(&request_, this);
      return;
    }
    Reply();
  }

  // One state at a time. REQUIRES: the lock of the server.
  void Tell(FakeHealth health) {
    if (is_telling_ || told_ == health) return;
    is_telling_ = true;
    told_ = health;
    grpc::health::v1::HealthCheckResponse response;
    response.set_status(health);
    const grpc::Slice slice(response.SerializeAsString());
    stream_.Write(grpc::ByteBuffer(&slice, 1), this);
  }
  // Whether an event of it is still to come.
  bool is_telling() const { return is_telling_; }

 private:
  enum class State { kArrived, kRead, kAnswered, kWatches, kAnswersAgain, kAnsweredOnStream };

  // Reads the next message when the answer is written.
  void AnswerOnStream(const FakeReply& reply) {
    inference::ModelStreamInferResponse response;
    if (!response.mutable_infer_response()->ParseFromString(reply.message)) {
      response.clear_infer_response();
      response.set_error_message("the test's answer is no ModelInferResponse");
    }
    const grpc::Slice slice(response.SerializeAsString());
    answer_ = grpc::ByteBuffer(&slice, 1);
    state_ = reply.twice ? State::kAnswersAgain : State::kAnsweredOnStream;
    stream_.Write(answer_, this);
  }

  void Watch() {
    absl::MutexLock lock(&server_->mutex_);
    if (server_->is_ending_) {
      delete this;
      return;
    }
    if (!server_->health_) {
      state_ = State::kAnswered;
      return stream_.Finish({grpc::StatusCode::UNIMPLEMENTED, "no health"}, this);
    }
    state_ = State::kWatches;
    server_->watches_.insert(this);
    ++server_->num_watches_;
    server_->num_watches_.notify_all();
    Tell(*server_->health_);
  }

  void OnTold() {
    absl::MutexLock lock(&server_->mutex_);
    is_telling_ = false;
    if (server_->is_ending_) {
      delete this;
    } else {
      Tell(*server_->health_);
    }
  }

  void Reply() {
    FakeCall call;
    call.method = context_.method().substr(context_.method().rfind('/') + 1);
    if (call.method == "Watch") return Watch();
    if (call.method == "ModelStreamInfer") {
      if (!server_->takes_streams_) {
        state_ = State::kAnswered;
        return stream_.Finish({grpc::StatusCode::UNIMPLEMENTED, "no streams"}, this);
      }
      is_stream_ = true;
    }
    for (const auto& [key, value] : context_.client_metadata()) {
      call.metadata.emplace(std::string(key.data(), key.size()),
                            std::string(value.data(), value.size()));
    }
    call.message = ToString(request_);
    call.deadline = absl::FromChrono(context_.deadline());
    call.peer = context_.peer();
    call.rpc = rpc_;
    if (SwigluTestServerBegins != nullptr) SwigluTestServerBegins();
    const FakeReply reply = server_->handler_(call);
    if (SwigluTestServerEnds != nullptr) SwigluTestServerEnds();
    state_ = State::kAnswered;
    if (reply.never) {
      // The next event is the end of the client's side, or of the server.
      stream_.Read(&request_, this);
      state_ = State::kAnswered;
      return;
    }
    for (const auto& [key, value] : reply.trailers) context_.AddTrailingMetadata(key, value);
    if (!reply.status.ok() || reply.no_message) {
      stream_.Finish(reply.status, this);
      return;
    }
    if (is_stream_) return AnswerOnStream(reply);
    const grpc::Slice slice(reply.message);
    stream_.WriteAndFinish(grpc::ByteBuffer(&slice, 1), grpc::WriteOptions(), reply.status, this);
  }

  FakeServer* const server_;
  grpc::GenericServerContext context_;
  grpc::GenericServerAsyncReaderWriter stream_;
  grpc::ByteBuffer request_;
  State state_ = State::kArrived;
  int rpc_ = 0;
  bool is_stream_ = false;
  grpc::ByteBuffer answer_;
  bool is_telling_ = false;
  absl::optional<FakeHealth> told_;
};

FakeServer::FakeServer(Handler handler, const std::string& address,
                       const FakeServerOptions& options)
    : handler_(std::move(handler)), takes_streams_(options.takes_streams), health_(options.health) {
  grpc::ServerBuilder builder;
  int port = 0;
  builder.AddListeningPort(address, grpc::InsecureServerCredentials(), &port);
  if (options.max_connection_age < absl::InfiniteDuration()) {
    builder.AddChannelArgument(
        GRPC_ARG_MAX_CONNECTION_AGE_MS,
        static_cast<int>(absl::ToInt64Milliseconds(options.max_connection_age)));
  }
  builder.RegisterAsyncGenericService(&service_);
  builder.SetMaxReceiveMessageSize(-1);
  builder.SetMaxSendMessageSize(-1);
  queue_ = builder.AddCompletionQueue();
  server_ = builder.BuildAndStart();
  address_ = "127.0.0.1:" + std::to_string(port);
  new Call(this);
  thread_ = std::thread([this] { Serve(); });
}

void FakeServer::SetHealth(FakeHealth health) {
  absl::MutexLock lock(&mutex_);
  health_ = health;
  for (Call* const call : watches_) call->Tell(health);
}

void FakeServer::EndWatch(Call* call) {
  absl::MutexLock lock(&mutex_);
  watches_.erase(call);
}

FakeServer::~FakeServer() {
  {
    absl::MutexLock lock(&mutex_);
    is_ending_ = true;
    for (Call* const call : watches_) {
      if (!call->is_telling()) delete call;
    }
    watches_.clear();
  }
  server_->Shutdown(std::chrono::system_clock::now());
  // No operation may begin on a queue that is shut down, so the thread itself does that.
  grpc::Alarm last;
  last.Set(queue_.get(), std::chrono::system_clock::now(), nullptr);
  thread_.join();
}

void FakeServer::Serve() {
  void* tag = nullptr;
  bool ok = false;
  bool is_shut_down = false;
  while (queue_->Next(&tag, &ok)) {
    Call* const call = static_cast<Call*>(tag);
    if (call == nullptr) {
      queue_->Shutdown();
      is_shut_down = true;
    } else if (is_shut_down) {
      delete call;
    } else {
      call->Proceed(ok);
    }
  }
}

}  // namespace swiglu::client
