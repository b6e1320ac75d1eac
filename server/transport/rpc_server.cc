// SPDX-License-Identifier: Apache-2.0
//
// Start, waiting for calls, and shutdown. Settings of the gRPC library are here and nowhere else.
#include "server/transport/rpc_server.h"

#include <grpc/grpc.h>
#include <grpc/impl/codegen/grpc_types.h>
#include <unistd.h>

#include <algorithm>
#include <limits>
#include <utility>

#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "grpcpp/resource_quota.h"
#include "grpcpp/security/server_credentials.h"
#include "server/log/log.h"
#include "server/transport/library_log.h"

namespace swiglu::server {
namespace {

// How many calls are requested from gRPC ahead, so that a burst finds them posted.
constexpr int kPostedAccepts = 128;

// Streams of one connection that are served at once; a client's further calls wait on its own side.
constexpr int kMaxStreamsPerConnection = 1024;

// How often it is looked whether the last calls have ended.
constexpr absl::Duration kEndingCallInterval = absl::Microseconds(200);

// Keeps the gRPC library up until the process ends. When its last user goes it waits for pollers of
// its own, which after a large message sleep for ten seconds: a drained server would exit that
// late.
void KeepLibrary() {
  static const bool kept = (grpc_init(), true);
  (void)kept;
}

// How early a ping may come that is sent on time.
constexpr absl::Duration kPingSlack = absl::Seconds(1);

// The most metadata that the library takes. Past that it breaks the whole connection, and the calls
// of others on it, so this is far beyond the limit that callers are held to.
constexpr int kMaxLibraryMetadataBytes = 1 << 20;

int ToMilliseconds(absl::Duration time) {
  return static_cast<int>(absl::ToInt64Milliseconds(time));
}

// The library's word for never is the largest number.
int ToMillisecondsOrNever(absl::Duration time) {
  return time == absl::ZeroDuration() ? std::numeric_limits<int>::max() : ToMilliseconds(time);
}

// Sets these limits on `builder`.
void ApplyConnectionLimits(const ConnectionLimits& limits, grpc::ServerBuilder& builder) {
  builder.AddChannelArgument(GRPC_ARG_MAX_CONNECTION_AGE_MS, ToMillisecondsOrNever(limits.max_age));
  builder.AddChannelArgument(GRPC_ARG_MAX_CONNECTION_AGE_GRACE_MS,
                             ToMilliseconds(limits.max_age_grace));
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS,
                             ToMillisecondsOrNever(limits.keepalive_time));
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIMEOUT_MS,
                             ToMilliseconds(limits.keepalive_timeout));
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS,
                             ToMilliseconds(PingIntervalWithSlack(limits.min_ping_interval)));
  // Clients may ping, and are pinged, without calls too: it keeps connections through balancers.
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  builder.AddChannelArgument(GRPC_ARG_MAX_METADATA_SIZE, kMaxLibraryMetadataBytes);
}

}  // namespace

absl::Duration PingIntervalWithSlack(absl::Duration interval) {
  return interval - std::min(kPingSlack, interval / 2);
}

absl::StatusOr<std::unique_ptr<RpcServer>> RpcServer::Start(RpcServerOptions options,
                                                            const CallRouter* router,
                                                            Connections* connections) {
  CHECK(options.io_threads >= 1);
  auto acceptor = Acceptor::Listen({.address = options.address,
                                    .unix_socket_mode = options.unix_socket_mode,
                                    .max_connections = options.max_connections,
                                    .acknowledge_timeout = options.connections.keepalive_timeout});
  if (!acceptor.ok()) return acceptor.status();

  KeepLibrary();
  auto server = std::unique_ptr<RpcServer>(new RpcServer(router, connections));
  server->acceptor_ = *std::move(acceptor);
  grpc::ServerBuilder builder;
  server->handover_ = builder.experimental().AddExternalConnectionAcceptor(
      grpc::ServerBuilder::experimental_type::ExternalConnectionType::FROM_FD,
      grpc::InsecureServerCredentials());
  builder.RegisterAsyncGenericService(&server->service_);
  // Sizes are checked, with a sentence of our own, when a message is there.
  builder.SetMaxReceiveMessageSize(-1);
  builder.SetMaxSendMessageSize(-1);
  // A small compressed message can unpack to any size, which gRPC does before it shows the message
  // to anybody. Such calls are UNIMPLEMENTED, with the encodings that are taken.
  for (const grpc_compression_algorithm packed : {GRPC_COMPRESS_DEFLATE, GRPC_COMPRESS_GZIP}) {
    builder.SetCompressionAlgorithmSupportStatus(packed, false);
  }
  builder.AddChannelArgument(GRPC_ARG_MAX_CONCURRENT_STREAMS, kMaxStreamsPerConnection);
  ApplyConnectionLimits(options.connections, builder);
  builder.SetResourceQuota(grpc::ResourceQuota("swiglu-server")
                               .Resize(static_cast<size_t>(options.receive_quota_bytes)));
  IoThreads::Queues queues(IoThreads::NumQueues(options.io_threads));
  for (auto& queue : queues) queue = builder.AddCompletionQueue();

  server->server_ = builder.BuildAndStart();
  if (server->server_ == nullptr) {
    for (auto& queue : queues) queue->Shutdown();
    return absl::FailedPreconditionError("gRPC's server did not start");
  }
  server->threads_ = std::make_unique<IoThreads>(std::move(queues), options.io_threads,
                                                 ChoosePollerCount, std::move(options.busy_waits));
  for (int i = 0; i < kPostedAccepts; ++i) server->PostAccept();
  server->ticker_ = std::thread(
      [server = server.get(), tick = options.tick] { server->TickUntilShutdown(tick); });
  server->StartAccepting(std::move(options.accepting_changed));
  return server;
}

RpcServer::RpcServer(const CallRouter* router, Connections* connections)
    : router_(router), connections_(connections) {}

RpcServer::~RpcServer() { Shutdown(absl::ZeroDuration()); }

void RpcServer::Broadcast(ServerEvent event) {
  // First, so that a call that is not among the live ones yet sees it.
  if (event == ServerEvent::kDraining) draining_.store(true);
  calls_.Deliver(event);
}

void RpcServer::CloseConnections(absl::Duration grace) {
  const absl::Time end = absl::Now() + grace;
  for (const CallPtr& call : calls_.All()) {
    while (calls_.Has(*call) && absl::Now() < end) absl::SleepFor(kEndingCallInterval);
  }
  SilenceLibraryLogs();
  acceptor_->Stop();
  connections_->Close(end);
}

void RpcServer::Shutdown(absl::Duration grace) {
  {
    absl::MutexLock lock(&mutex_);
    if (shut_down_ || server_ == nullptr) return;
    shut_down_ = true;
  }
  ticker_.join();
  acceptor_->Stop();
  ShutDownLibrary(absl::Now() + grace);
  {
    const auto none = [this] { return num_calls_.load(std::memory_order_acquire) == 0; };
    absl::MutexLock lock(&mutex_);
    mutex_.Await(absl::Condition(&none));
  }
  // A call that began something on a queue which is shut down would end the process.
  threads_->Shutdown();
}

// gRPC waits until every connection has ended. While a write on a connection waits for the peer,
// gRPC does not end the connection, so a peer that does not read could make gRPC wait for ever.
// EndAll ends such writes.
void RpcServer::ShutDownLibrary(absl::Time deadline) {
  absl::Notification is_down;
  std::thread ender([&] {
    if (!is_down.WaitForNotificationWithDeadline(deadline)) connections_->EndAll();
  });
  server_->Shutdown(absl::ToChronoTime(deadline));
  is_down.Notify();
  ender.join();
}

std::unique_ptr<CallHandler> RpcServer::OnAccepted(Call& call) {
  PostAccept();
  calls_.Add(call);
  if (draining_.load()) call.Deliver(ServerEvent::kDraining);
  // Without this one and those that are waited for.
  const int64_t num_open = num_calls_.load(std::memory_order_relaxed) - kPostedAccepts - 1;
  return router_->MakeHandler(call, num_open);
}

void RpcServer::OnGone(Call& call) {
  calls_.Remove(call);
  if (call.is_cancelled()) CountReset(call);
}

void RpcServer::CountReset(const Call& call) {
  {
    absl::MutexLock lock(&resets_mutex_);
    if (!resets_.IsExceeded(call.peer(), Clock::now())) return;
  }
  connections_->End(call.peer(), EndReason::kResets);
}

void RpcServer::StartAccepting(std::function<void(bool accepting)> accepting_changed) {
  acceptor_->Start({.num_open = [this] { return connections_->NumOpen(); },
                    .refused = [this] { connections_->CountRefused(); },
                    .take =
                        [this](int fd) {
                          connections_->Add(fd);
                          num_calls_.fetch_add(1, std::memory_order_relaxed);
                          IoQueue& queue = threads_->Bind();
                          queue.Post(WorkLength::kShort, [this, fd, &queue] {
                            HandOver(fd);
                            OnDestroyed(&queue);
                          });
                        },
                    .accepting_changed =
                        [this, accepting_changed = std::move(accepting_changed)](bool accepting) {
                          if (accepting_changed) accepting_changed(accepting);
                          Broadcast(ServerEvent::kHealthChanged);
                        }});
}

void RpcServer::HandOver(int fd) {
  {
    absl::MutexLock lock(&mutex_);
    if (shut_down_) {
      ::close(fd);
      return;
    }
  }
  grpc::experimental::ExternalConnectionAcceptor::NewConnectionParameters connection;
  connection.fd = fd;
  handover_->HandleNewConnection(&connection);
}

void RpcServer::PostAccept() {
  num_calls_.fetch_add(1, std::memory_order_relaxed);
  Home* const home = this;
  std::make_shared<Call>(home, &threads_->Bind())->Accept(&service_);
}

void RpcServer::OnDestroyed(IoQueue* queue) {
  queue->Unbind();
  int64_t seen = num_calls_.load(std::memory_order_relaxed);
  while (seen > 1) {
    if (num_calls_.compare_exchange_weak(seen, seen - 1, std::memory_order_release)) return;
  }
  // The last one, which only a shutdown sees: it waits, and once the lock is free this is gone.
  absl::MutexLock lock(&mutex_);
  num_calls_.fetch_sub(1, std::memory_order_release);
}

void RpcServer::TickUntilShutdown(absl::Duration tick) {
  while (true) {
    {
      absl::MutexLock lock(&mutex_);
      if (mutex_.AwaitWithTimeout(absl::Condition(&shut_down_), tick)) return;
    }
    Broadcast(ServerEvent::kTick);
  }
}

}  // namespace swiglu::server
