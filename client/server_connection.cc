// SPDX-License-Identifier: Apache-2.0
//
// Calls that block and calls that do not, over one chain of decorators.
#include "client/server_connection.h"

#include <algorithm>
#include <memory>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "client/server_address.h"
#include "client/unary_call.h"

namespace swiglu::client {
namespace {

constexpr char kService[] = "/inference.GRPCInferenceService/";

// How many small calls of one operation and dtype go alone. If more are under way: the messages
// that are away to each server before calls gather, and before a full message of them gathers.
// docs/performance-record.md has the measurements.
constexpr int kMaxAlone = 6;
constexpr int kMaxAwayPerServer = 2;
constexpr int kMaxFullAwayPerServer = 16;

int NumCores() { return static_cast<int>(std::thread::hardware_concurrency()); }

Wait WaitOf(const Options& options) { return options.spin ? Wait::kSpin : Wait::kSleep; }

CallResult Failure(absl::Status status) {
  CallResult result;
  result.status = std::move(status);
  return result;
}

// A stream would stay with one server of a group.
bool HasGroup(const ConnectionPool& pool) {
  for (int i = 0; i < pool.num_servers(); ++i) {
    if (pool.IsGroupOfServers(i)) return true;
  }
  return false;
}

CoalescingOptions CoalescingOf(const Options& options, const ConnectionPool& pool) {
  CoalescingOptions coalescing;
  coalescing.max_call_bytes = options.coalesce_bytes;
  coalescing.max_alone = kMaxAlone;
  coalescing.max_away = kMaxAwayPerServer * pool.num_servers();
  coalescing.max_full_away = kMaxFullAwayPerServer * pool.num_servers();
  coalescing.max_message_bytes =
      std::min(coalescing.max_message_bytes, options.max_message_bytes / 4);
  coalescing.servers = pool.AddressesText();
  return coalescing;
}

HedgingOptions HedgingOf(const Options& options) {
  HedgingOptions hedging;
  hedging.delay = options.hedge_delay;
  return hedging;
}

// In how many parts a large call goes. Each takes a core, here or at the server.
int MostParts(const Options& options) {
  return std::clamp(NumCores() / 2, 1, options.num_connections);
}

// Tells the hook of the options how a call ended.
Connection::Done Observed(const Inference& inference, const Options& options,
                          Connection::Done done) {
  return [&inference, &options, start = absl::Now(),
          done = std::move(done)](CallResult&& result) mutable {
    options.on_call({inference.model, result.status, absl::Now() - start, result.statistics});
    std::move(done)(std::move(result));
  };
}

}  // namespace

ServerConnection::Parts::Parts(const std::vector<std::string>& addresses,
                               const Options& its_options)
    : options(its_options),
      pool(addresses, options.num_connections, options.credentials),
      uses_streams(options.streams && options.hedge_delay == absl::ZeroDuration() &&
                   !HasGroup(pool)),
      health(&pool),
      budget(options.retry_budget),
      threads(std::clamp(NumCores() / 2, 2, 8), [this] { LookAfter(); }),
      model(&pool, &threads),
      retrying(&model, options.max_attempts, &budget, &pool, &threads),
      hedging(&retrying, HedgingOf(options), &pool, &threads),
      coalescing(options.hedge_delay > absl::ZeroDuration() ? static_cast<Connection*>(&hedging)
                                                            : &retrying,
                 CoalescingOf(options, pool), &threads),
      splitting(&coalescing, options, MostParts(options), &pool, &threads) {}

void ServerConnection::Parts::LookAfter() {
  pool.Reconnect();
  health.LookAfter();
  CloseIdleStreams();
}

void ServerConnection::Parts::CloseIdleStreams() {
  const absl::Time now = absl::Now();
  // They close after the lock is released, because gRPC tells the server of each.
  std::vector<std::shared_ptr<void>> closing;
  absl::MutexLock lock(&mutex);
  for (const std::unique_ptr<Seat>& seat : idle_seats) {
    if (!seat->streams.IsIdle(now)) continue;
    for (std::shared_ptr<void>& stream : seat->streams.TakeStreams()) {
      closing.push_back(std::move(stream));
    }
  }
}

ServerConnection::ServerConnection(const std::vector<std::string>& addresses,
                                   const Options& options)
    : parts_(std::make_unique<Parts>(addresses, options)) {}

ServerConnection::~ServerConnection() {
  if (fork_guard_.IsInChild()) {
    [[maybe_unused]] const Parts* const left_alone = parts_.release();
    return;
  }
  {
    absl::MutexLock lock(&parts_->mutex);
    parts_->mutex.Await(absl::Condition(
        +[](int64_t* num_calls) { return *num_calls == 0; }, &parts_->num_calls));
  }
  // Their timers use the other parts.
  parts_->threads.Stop();
}

void ServerConnection::Start(const Inference& inference, const CallContext& context, Done done) {
  parts_->budget.EarnByCall();
  parts_->health.LookAfterIfDue();
  if (parts_->options.on_call) done = Observed(inference, parts_->options, std::move(done));
  parts_->splitting.StartInfer(inference, context, std::move(done));
}

void ServerConnection::StartInfer(const Inference& inference, const CallContext& context,
                                  Done done) {
  if (absl::Status status = fork_guard_.Check(); !status.ok()) {
    return std::move(done)(Failure(std::move(status)));
  }
  {
    absl::MutexLock lock(&parts_->mutex);
    ++parts_->num_calls;
  }
  Parts* const parts = parts_.get();
  Start(inference, context, [parts, done = std::move(done)](CallResult&& result) mutable {
    std::move(done)(std::move(result));
    absl::MutexLock lock(&parts->mutex);
    --parts->num_calls;
  });
}

CallResult ServerConnection::Infer(const Inference& inference, const CallContext& context) {
  if (absl::Status status = fork_guard_.Check(); !status.ok()) return Failure(std::move(status));
  std::unique_ptr<Seat> seat = TakeSeat();
  CallContext own = context;
  own.queue = &seat->queue;
  if (parts_->uses_streams) own.streams = &seat->streams;
  CallResult result;
  Start(inference, own, [&result, queue = own.queue](CallResult&& its_result) {
    result = std::move(its_result);
    queue->Notify();
  });
  seat->queue.RunUntilNotified(WaitOf(parts_->options), context.while_waiting);
  GiveSeat(std::move(seat));
  return result;
}

absl::StatusOr<std::string> ServerConnection::Control(absl::string_view rpc,
                                                      const std::string& request,
                                                      const TimeLimit& limit) {
  if (absl::Status status = fork_guard_.Check(); !status.ok()) return status;
  std::unique_ptr<Seat> seat = TakeSeat();
  EventQueue* const queue = &seat->queue;
  const CallOptions options;
  CallContext context{limit, &options};
  absl::StatusOr<grpc::ByteBuffer> answer;
  while (true) {
    auto* const call = new UnaryCall(&parts_->pool, absl::StrCat(kService, rpc), context, queue);
    OutgoingMessage message;
    message.Append(grpc::Slice(request));
    CallOutcome outcome;
    call->Start(std::move(message), [&outcome, queue](CallOutcome its_outcome) {
      outcome = std::move(its_outcome);
      queue->Notify();
    });
    queue->RunUntilNotified(WaitOf(parts_->options));
    answer = std::move(outcome.answer);
    if (!absl::IsUnavailable(answer.status()) || outcome.channel == nullptr) break;
    context.tried.Add(outcome.channel->server);
    if (num_servers() == 1 || !parts_->pool.HasOther(context.tried)) break;
  }
  GiveSeat(std::move(seat));
  if (!answer.ok()) return answer.status();
  grpc::Slice bytes;
  if (!answer->DumpToSingleSlice(&bytes).ok()) {
    return absl::InternalError(absl::StrCat("bad answer to ", rpc));
  }
  return std::string(reinterpret_cast<const char*>(bytes.begin()), bytes.size());
}

std::unique_ptr<ServerConnection::Seat> ServerConnection::TakeSeat() {
  absl::MutexLock lock(&parts_->mutex);
  if (parts_->idle_seats.empty()) return std::make_unique<Seat>(&parts_->pool);
  std::unique_ptr<Seat> seat = std::move(parts_->idle_seats.back());
  parts_->idle_seats.pop_back();
  return seat;
}

void ServerConnection::GiveSeat(std::unique_ptr<Seat> seat) {
  absl::MutexLock lock(&parts_->mutex);
  parts_->idle_seats.push_back(std::move(seat));
}

}  // namespace swiglu::client
