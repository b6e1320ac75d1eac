// SPDX-License-Identifier: Apache-2.0
//
// Channels, completion queues and the wait for borrowed memory.
#include "client/connection_pool.h"

#include <algorithm>
#include <chrono>
#include <map>
#include <tuple>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "grpc/support/time.h"
#include "grpcpp/client_context.h"
#include "grpcpp/create_channel.h"
#include "grpcpp/security/credentials.h"

namespace swiglu::client {
namespace {

// What gRPC itself says when a call's time is over.
constexpr absl::string_view kGrpcDeadlineMessage = "Deadline Exceeded";

// gRPC's whole message when the kernel cannot read the memory to send: the text of EFAULT.
constexpr absl::string_view kUnreadableMemory = "Bad address";

// The interval of the checks in the wait for borrowed memory.
constexpr auto kLoanPollInterval = std::chrono::milliseconds(1);

// The longest time that a server that pushes back is avoided.
constexpr absl::Duration kLongestAvoidance = absl::Minutes(1);

// The metadata by which a server says, in milliseconds, when to try again. A value below zero, or
// one that is no number, means never, as in gRPC's own retries.
constexpr char kPushbackKey[] = "grpc-retry-pushback-ms";
constexpr absl::Duration kNeverAgain = absl::Milliseconds(-1);

absl::optional<absl::Duration> PushbackOf(
    const std::multimap<grpc::string_ref, grpc::string_ref>& trailers) {
  const auto found = trailers.find(kPushbackKey);
  if (found == trailers.end()) return absl::nullopt;
  int64_t ms = 0;
  const absl::string_view text(found->second.data(), found->second.size());
  if (!absl::SimpleAtoi(text, &ms) || ms < 0) return kNeverAgain;
  return absl::Milliseconds(ms);
}

}  // namespace

grpc::Slice Loan::Lend(absl::Span<const std::byte> bytes) {
  num_lent_.fetch_add(1, std::memory_order_relaxed);
  return grpc::Slice(const_cast<std::byte*>(bytes.data()), bytes.size(), &Loan::TakeBack, this);
}

// When the count reaches zero, the owner may destroy the loan, so nothing touches it after that.
void Loan::TakeBack(void* loan) {
  static_cast<Loan*>(loan)->num_lent_.fetch_sub(1, std::memory_order_release);
}

void OutgoingMessage::Append(grpc::Slice slice) {
  size_bytes += static_cast<int64_t>(slice.size());
  slices.push_back(std::move(slice));
}

absl::Status CheckAddress(absl::string_view address) {
  const absl::string_view kUnix = "unix:";
  const auto bad = [&](absl::string_view why) {
    return absl::InvalidArgumentError(absl::StrCat("bad server address '", address, "': ", why,
                                                   "; it takes HOST:PORT or unix:/path"));
  };
  if (absl::StartsWith(address, kUnix)) {
    return address.size() > kUnix.size() ? absl::OkStatus() : bad("the path is missing");
  }
  const size_t colon = address.rfind(':');
  if (colon == absl::string_view::npos) return bad("the port is missing");
  const absl::string_view host = address.substr(0, colon);
  if (host.empty()) return bad("the host is missing");
  if (absl::StrContains(host, '/')) return bad("a host has no '/'");
  if (absl::StrContains(host, ':') && (host.front() != '[' || host.back() != ']')) {
    return bad("an IPv6 address needs brackets, as in [::1]:8001");
  }
  int port = 0;
  if (!absl::SimpleAtoi(address.substr(colon + 1), &port) || port < 1 || port > 65535) {
    return bad("the port is not a number from 1 to 65535");
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<std::string>> SplitAddresses(absl::string_view addresses) {
  std::vector<std::string> split;
  for (const absl::string_view address : absl::StrSplit(addresses, ',')) {
    const absl::Status status = CheckAddress(address);
    if (!status.ok()) return status;
    if (std::find(split.begin(), split.end(), address) != split.end()) {
      return absl::InvalidArgumentError(
          absl::StrCat("bad server addresses '", addresses, "': ", address, " is there twice"));
    }
    split.emplace_back(address);
  }
  if (split.size() > static_cast<size_t>(kMaxServers)) {
    return absl::InvalidArgumentError(absl::StrCat(
        "there are ", split.size(), " server addresses; a client takes up to ", kMaxServers));
  }
  return split;
}

std::shared_ptr<grpc::Channel> MakeChannel(absl::string_view address, grpc::ChannelArguments args) {
  args.SetMaxSendMessageSize(-1);
  args.SetMaxReceiveMessageSize(-1);
  // Each channel has a connection of its own, though all have one address.
  args.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  // A retry keeps the request's memory, and its policy is the caller's.
  args.SetInt(GRPC_ARG_ENABLE_RETRIES, 0);
  // Tensors go straight to the server, whatever proxy the environment names for web pages.
  args.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  args.SetInt(GRPC_ARG_SERVICE_CONFIG_DISABLE_RESOLUTION, 1);
  const absl::string_view scheme = absl::StartsWith(address, "unix:") ? "" : "dns:///";
  return grpc::CreateCustomChannel(absl::StrCat(scheme, address),
                                   grpc::InsecureChannelCredentials(), args);
}

bool NextEvent(grpc::CompletionQueue& queue, Wait wait, void** tag, bool* ok) {
  if (wait == Wait::kSleep) return queue.Next(tag, ok);
  // A time in the past lets the queue poll once.
  const gpr_timespec past = gpr_time_0(GPR_CLOCK_REALTIME);
  while (true) {
    const grpc::CompletionQueue::NextStatus status = queue.AsyncNext(tag, ok, past);
    if (status == grpc::CompletionQueue::TIMEOUT) continue;
    return status == grpc::CompletionQueue::GOT_EVENT;
  }
}

ConnectionPool::ConnectionPool(const std::vector<std::string>& addresses, int num_connections,
                               Wait wait)
    : wait_(wait), connections_(addresses.size() * static_cast<size_t>(num_connections)) {
  for (const std::string& address : addresses) servers_.push_back({address});
  grpc::ChannelArguments args;
  // A server that comes back is found within a second.
  args.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 100);
  args.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 1000);
  // With keepalive on, gRPC sets TCP_USER_TIMEOUT to the timeout given here: a peer that has
  // stopped taking bytes loses the connection, and thereby our borrowed memory, after that time.
  // The pings themselves are rarer than the 5 minutes that servers demand.
  args.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, 10 * 60 * 1000);
  args.SetInt(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 20 * 1000);
  for (size_t i = 0; i < connections_.size(); ++i) {
    Connection& connection = connections_[i];
    connection.server = &servers_[i % servers_.size()];
    connection.channel = MakeChannel(connection.server->address, args);
    connection.stub = std::make_unique<grpc::GenericStub>(connection.channel);
  }
}

ConnectionPool::~ConnectionPool() {
  absl::MutexLock lock(&mutex_);
  for (auto& queue : idle_queues_) {
    queue->Shutdown();
    void* tag = nullptr;
    bool ok = false;
    while (queue->Next(&tag, &ok)) {
    }
  }
}

CallOutcome ConnectionPool::Call(const std::string& method, OutgoingMessage request,
                                 const TimeLimit& limit, const ServerSet& tried) {
  if (absl::Now() >= limit.deadline) return {Late(AddressesText(), limit)};
  auto [connection, queue] = Acquire(request.size_bytes, tried);
  CallOutcome outcome;
  {
    // The call lives as long as its context, and may hold the request until then.
    grpc::ClientContext context;
    context.set_deadline(absl::ToChronoTime(limit.deadline));
    context.AddMetadata(kRequestBytesKey, std::to_string(request.size_bytes));
    grpc::ByteBuffer buffer(request.slices.data(), request.slices.size());
    request.slices.clear();
    auto call = connection->stub->PrepareUnaryCall(&context, method, buffer, queue.get());
    buffer.Clear();
    grpc::Status grpc_status;
    grpc::ByteBuffer response;
    call->StartCall();
    call->Finish(&response, &grpc_status, this);
    void* tag = nullptr;
    bool ok = false;
    NextEvent(*queue, wait_, &tag, &ok);
    if (!grpc_status.ok()) {
      outcome = ToFailure(grpc_status, *connection, context, limit);
    } else if (response.Valid()) {
      outcome.answer = std::move(response);
    } else {
      outcome.answer = absl::InternalError(
          absl::StrCat("empty answer from ", connection->server->address, " to ", method));
    }
  }
  if (request.loan != nullptr) {
    // Normally gRPC has released all slices by now. If not, the transport still has bytes to send,
    // and polling the queue lets it go on.
    while (!request.loan->IsRepaid()) {
      void* tag = nullptr;
      bool ok = false;
      queue->AsyncNext(&tag, &ok, std::chrono::system_clock::now() + kLoanPollInterval);
    }
  }
  outcome.server = NumberOf(*connection);
  Release(connection, request.size_bytes, std::move(queue));
  if (servers_.size() > 1 && outcome.pushback && *outcome.pushback > absl::ZeroDuration()) {
    absl::MutexLock lock(&mutex_);
    absl::Time& opens = connection->server->opens;
    opens = std::max(opens, absl::Now() + std::min(*outcome.pushback, kLongestAvoidance));
  }
  return outcome;
}

std::pair<ConnectionPool::Connection*, std::unique_ptr<grpc::CompletionQueue>>
ConnectionPool::Acquire(int64_t bytes, const ServerSet& tried) {
  absl::MutexLock lock(&mutex_);
  const bool has_choice = servers_.size() > 1;
  const absl::Time now = has_choice ? absl::Now() : absl::InfinitePast();
  // Among equal connections, servers take turns.
  const size_t first = has_choice ? turn_++ % servers_.size() : 0;
  Connection* best = nullptr;
  Rank best_rank = Rank::kReady;
  const auto cost_of = [&](const Connection& connection, const Rank& rank) {
    const absl::Time opens =
        rank == Rank::kPushesBack ? connection.server->opens : absl::InfinitePast();
    return std::make_tuple(rank >= Rank::kPushesBack, has_choice && tried.Has(NumberOf(connection)),
                           rank, opens, connection.pending_bytes, connection.num_pending);
  };
  for (size_t i = 0; i < connections_.size(); ++i) {
    Connection& connection = connections_[(first + i) % connections_.size()];
    const Rank rank = has_choice ? RankOf(connection, now) : Rank::kReady;
    if (best != nullptr && cost_of(connection, rank) >= cost_of(*best, best_rank)) continue;
    best = &connection;
    best_rank = rank;
  }
  best->pending_bytes += bytes;
  ++best->num_pending;
  if (idle_queues_.empty()) return {best, std::make_unique<grpc::CompletionQueue>()};
  std::unique_ptr<grpc::CompletionQueue> queue = std::move(idle_queues_.back());
  idle_queues_.pop_back();
  return {best, std::move(queue)};
}

bool ConnectionPool::HasOther(const ServerSet& tried) {
  absl::MutexLock lock(&mutex_);
  const absl::Time now = absl::Now();
  return std::any_of(connections_.begin(), connections_.end(), [&](const Connection& connection) {
    return !tried.Has(NumberOf(connection)) && RankOf(connection, now) <= Rank::kConnecting;
  });
}

absl::Duration ConnectionPool::TimeUntilOpen() {
  absl::MutexLock lock(&mutex_);
  const absl::Time now = absl::Now();
  absl::Duration least = absl::InfiniteDuration();
  for (const Server& server : servers_) {
    if (server.opens > now) least = std::min(least, server.opens - now);
  }
  return least;
}

ConnectionPool::Rank ConnectionPool::RankOf(const Connection& connection, absl::Time now) const {
  if (now < connection.server->opens) return Rank::kPushesBack;
  const grpc_connectivity_state state = connection.channel->GetState(/*try_to_connect=*/true);
  if (state == GRPC_CHANNEL_READY) return Rank::kReady;
  return state == GRPC_CHANNEL_TRANSIENT_FAILURE ? Rank::kLost : Rank::kConnecting;
}

void ConnectionPool::Release(Connection* connection, int64_t bytes,
                             std::unique_ptr<grpc::CompletionQueue> queue) {
  absl::MutexLock lock(&mutex_);
  connection->pending_bytes -= bytes;
  --connection->num_pending;
  idle_queues_.push_back(std::move(queue));
}

CallOutcome ConnectionPool::ToFailure(const grpc::Status& status, const Connection& connection,
                                      const grpc::ClientContext& context,
                                      const TimeLimit& limit) const {
  const std::string& message = status.error_message();
  const std::string& address = connection.server->address;
  const auto& trailers = context.GetServerTrailingMetadata();
  if (status.error_code() == grpc::StatusCode::DEADLINE_EXCEEDED &&
      message == kGrpcDeadlineMessage) {
    return {Late(address, limit)};
  }
  if (status.error_code() == grpc::StatusCode::UNAVAILABLE && trailers.empty()) {
    // The kernel fails a write from unmapped memory. The memory may be that of another call.
    if (message == kUnreadableMemory) {
      return {absl::UnavailableError(absl::StrCat(
                  "the connection to ", address,
                  " broke: an input's memory cannot be read; was its file cut short?")),
              kNeverAgain};
    }
    // A server's own UNAVAILABLE either leaves the connection up or comes with trailers. gRPC's
    // UNAVAILABLE does neither.
    if (connection.channel->GetState(/*try_to_connect=*/false) != GRPC_CHANNEL_READY) {
      return {absl::UnavailableError(absl::StrCat("no connection to ", address, ": ", message))};
    }
  }
  const std::string from = servers_.size() > 1 ? absl::StrCat(" (from ", address, ")") : "";
  return {
      absl::Status(static_cast<absl::StatusCode>(status.error_code()), absl::StrCat(message, from)),
      PushbackOf(trailers)};
}

absl::Status ConnectionPool::Late(absl::string_view address, const TimeLimit& limit) const {
  const std::string timeout = absl::FormatDuration(limit.timeout);
  return absl::DeadlineExceededError(
      limit.timeout > absl::ZeroDuration()
          ? absl::StrCat("no answer from ", address, " within ", timeout)
          : absl::StrCat("no time for a call to ", address, ": its timeout is ", timeout));
}

std::string ConnectionPool::AddressesText() const {
  return absl::StrJoin(
      servers_, ",", [](std::string* text, const Server& server) { text->append(server.address); });
}

}  // namespace swiglu::client
