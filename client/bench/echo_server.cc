// SPDX-License-Identifier: Apache-2.0
//
// A call is three completions: its headers, its message, and the end of its answer. Signals are
// blocked in all threads and waited for in the one that serves.
#include "client/bench/echo_server.h"

#include <signal.h>
#include <stdio.h>

#include <atomic>
#include <chrono>
#include <memory>
#include <thread>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "client/bench/echo_answer.h"
#include "client/infer_codec.h"
#include "grpcpp/generic/async_generic_service.h"
#include "grpcpp/security/server_credentials.h"
#include "grpcpp/server_builder.h"
#include "proto/inference.pb.h"
#include "server/base/address.h"

namespace swiglu::bench {
namespace {

constexpr char kServerReady[] = "/inference.GRPCInferenceService/ServerReady";

// Per thread and per connection, the same values as in the real server.
constexpr int kPostedAccepts = 32;
constexpr int kMaxStreamsPerConnection = 1024;

grpc::ByteBuffer ReadyAnswer() {
  inference::ServerReadyResponse response;
  response.set_ready(true);
  const grpc::Slice bytes(response.SerializeAsString());
  return {&bytes, 1};
}

class EchoServer {
 public:
  explicit EchoServer(const EchoOptions& options)
      : answers_(*options.model, options.request_bytes), ready_answer_(ReadyAnswer()) {}

  // Returns the port, or 0 if the server cannot listen on the address.
  int Start(const EchoOptions& options) {
    grpc::ServerBuilder builder;
    int port = 0;
    builder.AddListeningPort(options.address, grpc::InsecureServerCredentials(), &port);
    builder.RegisterAsyncGenericService(&service_);
    builder.SetMaxReceiveMessageSize(-1);
    builder.SetMaxSendMessageSize(-1);
    builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
    builder.AddChannelArgument(GRPC_ARG_MAX_CONCURRENT_STREAMS, kMaxStreamsPerConnection);
    const int num_queues = options.queues == EchoQueues::kShared ? 1 : options.num_threads;
    for (int i = 0; i < num_queues; ++i) queues_.push_back(builder.AddCompletionQueue());
    server_ = builder.BuildAndStart();
    if (server_ == nullptr) return 0;
    for (int i = 0; i < options.num_threads; ++i) {
      grpc::ServerCompletionQueue* const queue = queues_[i % num_queues].get();
      for (int k = 0; k < kPostedAccepts; ++k) new Call(this, queue);
      threads_.emplace_back([queue] { Serve(*queue); });
    }
    return port;
  }

  ~EchoServer() {
    if (server_ != nullptr) {
      server_->Shutdown(std::chrono::system_clock::now());
      // An operation that a call starts on a shut-down queue would abort the process.
      for (int64_t n = num_calls_.load(); n > 0; n = num_calls_.load()) num_calls_.wait(n);
    }
    for (auto& queue : queues_) queue->Shutdown();
    for (std::thread& thread : threads_) thread.join();
    for (auto& queue : queues_) Serve(*queue);
  }

 private:
  // One call, from the wait for its headers to the end of its answer. Deletes itself at the end.
  class Call {
   public:
    Call(EchoServer* server, grpc::ServerCompletionQueue* queue) : server_(server), queue_(queue) {
      server_->num_calls_.fetch_add(1, std::memory_order_relaxed);
      server_->service_.RequestCall(&context_, &stream_, queue_, queue_, this);
    }

    void Advance(bool ok) {
      if (!ok || step_ == Step::kAnswer) {
        delete this;
      } else if (step_ == Step::kHeaders) {
        step_ = Step::kMessage;
        new Call(server_, queue_);
        // After Read, another thread of the queue may already handle this call.
        stream_.Read(&message_, this);
      } else {
        step_ = Step::kAnswer;
        Answer();
      }
    }

   private:
    enum class Step { kHeaders, kMessage, kAnswer };

    ~Call() {
      if (server_->num_calls_.fetch_sub(1) == 1) server_->num_calls_.notify_all();
    }

    void Answer() {
      if (context_.method() == client::kModelInfer) {
        grpc::ByteBuffer answer;
        if (server_->answers_.Answer(&message_, &answer)) return Write(answer);
        return Fail(grpc::StatusCode::INVALID_ARGUMENT, "the echo knows no request of this size");
      }
      if (context_.method() == kServerReady) return Write(server_->ready_answer_);
      Fail(grpc::StatusCode::UNIMPLEMENTED, "the echo has no such method");
    }

    void Write(const grpc::ByteBuffer& answer) {
      stream_.WriteAndFinish(answer, grpc::WriteOptions(), grpc::Status::OK, this);
    }

    void Fail(grpc::StatusCode code, const char* why) {
      stream_.Finish(grpc::Status(code, why), this);
    }

    EchoServer* const server_;
    grpc::ServerCompletionQueue* const queue_;
    Step step_ = Step::kHeaders;
    grpc::GenericServerContext context_;
    grpc::GenericServerAsyncReaderWriter stream_{&context_};
    grpc::ByteBuffer message_;
  };

  static void Serve(grpc::ServerCompletionQueue& queue) {
    void* tag = nullptr;
    bool ok = false;
    while (queue.Next(&tag, &ok)) static_cast<Call*>(tag)->Advance(ok);
  }

  const EchoAnswers answers_;
  const grpc::ByteBuffer ready_answer_;
  grpc::AsyncGenericService service_;
  std::vector<std::unique_ptr<grpc::ServerCompletionQueue>> queues_;
  std::unique_ptr<grpc::Server> server_;
  std::vector<std::thread> threads_;
  std::atomic<int64_t> num_calls_{0};
};

}  // namespace

cli::ProgramEnd ServeEcho(const EchoOptions& options) {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);

  EchoServer server(options);
  const int port = server.Start(options);
  if (port == 0) {
    return {cli::ExitCode::kBadInput, absl::StrCat("cannot listen on ", options.address)};
  }
  const bool is_unix = absl::StartsWith(options.address, "unix:");
  printf("serving the echo on %s\n",
         (is_unix ? options.address : server::WithPort(options.address, port)).c_str());
  fflush(stdout);
  int signal = 0;
  sigwait(&signals, &signal);
  return {};
}

}  // namespace swiglu::bench
