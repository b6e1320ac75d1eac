// SPDX-License-Identifier: Apache-2.0
//
// Completion queues and their threads: they poll, and pass each event to its tag. Settings of the
// gRPC library are here and nowhere else.
#include "server/rpc/rpc_server.h"

#include <grpc/grpc.h>
#include <unistd.h>

#include <list>
#include <thread>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "grpcpp/alarm.h"
#include "grpcpp/security/server_credentials.h"
#include "grpcpp/server_builder.h"
#include "server/log/log.h"
#include "server/rpc/listen_address.h"

namespace swiglu::server {
namespace {

// Waits for a call that each queue keeps posted: a burst finds takers at once.
constexpr int kPostedAccepts = 32;

// Streams of one connection that are served at once; a client's further calls wait on its own side.
constexpr int kMaxStreamsPerConnection = 1024;

// Keeps the gRPC library up until the process ends. When its last user goes it waits for pollers of
// its own, which after a large message sleep for ten seconds: a drained server would exit that
// late.
void KeepLibrary() {
  static const bool kept = (grpc_init(), true);
  (void)kept;
}

}  // namespace

// One completion queue, its thread and the calls that live on it.
class RpcServer::Worker final : public Call::Home {
 public:
  Worker(RpcServer* server, std::unique_ptr<grpc::ServerCompletionQueue> queue)
      : server_(server), queue_(std::move(queue)) {}

  void Start() {
    for (int i = 0; i < kPostedAccepts; ++i) PostAccept();
    thread_ = std::thread([this] { Run(); });
  }

  // Lets the thread see `event` between two completions.
  void Post(ServerEvent event) {
    auto* posted = new PostedEvent(this, event);
    posted->alarm.Set(queue_.get(), gpr_now(GPR_CLOCK_MONOTONIC), static_cast<Event*>(posted));
  }

  // Waits for the last call, then ends the thread. REQUIRES: the server is shut down.
  void Join() {
    {
      const auto none = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return num_calls_ == 0; };
      absl::MutexLock lock(&mutex_);
      mutex_.Await(absl::Condition(&none));
    }
    // A call that began something on a queue which is shut down would end the process.
    queue_->Shutdown();
    thread_.join();
  }

  std::unique_ptr<CallHandler> OnAccepted(Call& call) override {
    PostAccept();
    call.place = live_calls_.insert(live_calls_.end(), call.shared_from_this());
    return server_->router_->MakeHandler(call);
  }

  void OnGone(Call& call) override { live_calls_.erase(call.place); }

 private:
  struct PostedEvent final : Event {
    PostedEvent(Worker* target, ServerEvent what) : worker(target), event(what) {}
    void Happen(bool) override {
      worker->Deliver(event);
      delete this;
    }
    Worker* const worker;
    const ServerEvent event;
    grpc::Alarm alarm;
  };

  void PostAccept() {
    CountCalls(1);
    const CallPtr call(new Call(this), [this](Call* ended) {
      delete ended;
      CountCalls(-1);
    });
    call->Accept(&server_->service_, queue_.get());
  }

  void CountCalls(int64_t amount) {
    absl::MutexLock lock(&mutex_);
    num_calls_ += amount;
  }

  void Deliver(ServerEvent event) {
    for (const CallPtr& call : live_calls_) call->handler().OnServerEvent(event);
  }

  void Run() {
    void* tag = nullptr;
    bool ok = false;
    while (queue_->Next(&tag, &ok)) static_cast<Event*>(tag)->Happen(ok);
  }

  RpcServer* const server_;
  const std::unique_ptr<grpc::ServerCompletionQueue> queue_;
  // Touched by the thread alone.
  std::list<CallPtr> live_calls_;
  std::thread thread_;

  absl::Mutex mutex_;
  // Those that exist, waiting for their headers, live, or over but still owned by a request that is
  // not done.
  int64_t num_calls_ ABSL_GUARDED_BY(mutex_) = 0;
};

absl::StatusOr<std::unique_ptr<RpcServer>> RpcServer::Start(RpcServerOptions options,
                                                            const Router* router) {
  CHECK(options.io_threads >= 1);
  absl::Status usable = PrepareListenAddress(options.address);
  if (!usable.ok()) return usable;

  KeepLibrary();
  auto server = std::unique_ptr<RpcServer>(new RpcServer(router));
  grpc::ServerBuilder builder;
  int port = 0;
  builder.AddListeningPort(options.address, grpc::InsecureServerCredentials(), &port);
  builder.RegisterAsyncGenericService(&server->service_);
  // Sizes are checked, with a sentence of our own, when a message is there.
  builder.SetMaxReceiveMessageSize(-1);
  builder.SetMaxSendMessageSize(-1);
  // A second server on the same port is an error, not a lottery.
  builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
  builder.AddChannelArgument(GRPC_ARG_MAX_CONCURRENT_STREAMS, kMaxStreamsPerConnection);
  // Clients may ping every ten seconds to keep their connections through load balancers.
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, 10'000);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  std::vector<std::unique_ptr<grpc::ServerCompletionQueue>> queues;
  for (int i = 0; i < options.io_threads; ++i) queues.push_back(builder.AddCompletionQueue());

  server->server_ = builder.BuildAndStart();
  if (server->server_ == nullptr) {
    server->shut_down_ = true;
    for (auto& queue : queues) queue->Shutdown();
    return absl::FailedPreconditionError(
        absl::StrCat("cannot listen on ", options.address, ": address not available"));
  }
  server->socket_path_ = UnixSocketPath(options.address);
  server->address_ =
      server->socket_path_.empty()
          ? absl::StrCat(options.address.substr(0, options.address.rfind(':')), ":", port)
          : options.address;
  for (auto& queue : queues) {
    server->workers_.push_back(std::make_unique<Worker>(server.get(), std::move(queue)));
  }
  for (auto& worker : server->workers_) worker->Start();
  return server;
}

RpcServer::RpcServer(const Router* router) : router_(router) {}

RpcServer::~RpcServer() { Shutdown(absl::ZeroDuration()); }

void RpcServer::Broadcast(ServerEvent event) {
  for (auto& worker : workers_) worker->Post(event);
}

void RpcServer::Shutdown(absl::Duration grace) {
  if (shut_down_) return;
  shut_down_ = true;
  server_->Shutdown(absl::ToChronoTime(absl::Now() + grace));
  for (auto& worker : workers_) worker->Join();
  if (!socket_path_.empty()) ::unlink(socket_path_.c_str());
}

}  // namespace swiglu::server
