// SPDX-License-Identifier: Apache-2.0
//
// Connections by their peers, and the thread that looks at them.
#include "server/transport/message_watch.h"

#include <algorithm>
#include <functional>
#include <utility>

#include "server/base/heap.h"

namespace swiglu::server {
namespace {

// How long nothing is awaited until the thread sleeps.
constexpr std::chrono::seconds kAwake{1};

// What the allocator may hold beyond the budget while the budget does not suffice.
constexpr int64_t kMostUnusedBytes = int64_t{48} << 20;

}  // namespace

void MessageWatch::Entry::Bind(MessageWatch* watch, Call* call) {
  watch_ = watch;
  call_ = call;
  message_.entry = this;
  if (watch == nullptr) return;
  connection_ = watch->Find(*call);
  if (connection_ == nullptr) return;
  connection_->CountStep();
  header_bytes_ = call->MetadataBytes();
}

void MessageWatch::Entry::BindStream(MessageWatch* watch, Call* call) {
  Bind(watch, call);
  is_stream_ = connection_ != nullptr;
  if (is_stream_) connection_->num_streams.fetch_add(1, std::memory_order_relaxed);
}

MessageWatch::Entry::~Entry() {
  Drop();
  if (header_bytes_ > 0) {
    absl::MutexLock lock(&connection_->mutex);
    connection_->ledger.CountHeaders(header_bytes_);
  }
  if (is_stream_) connection_->num_streams.fetch_sub(1, std::memory_order_relaxed);
}

MessageSource MessageWatch::Entry::source() const {
  if (connection_ == nullptr) return {};
  return {connection_->share, connection_->is_measured};
}

void MessageWatch::Entry::Begin(Charge reservation, AwaitedKind kind, int64_t max_bytes) {
  message_.reservation = std::move(reservation);
  message_.kind = kind;
  message_.has_begun = false;
  message_.max_bytes = max_bytes;
  message_.overrun.reset();
  is_awaiting_ = true;
  if (connection_ == nullptr) return;
  {
    absl::MutexLock lock(&connection_->mutex);
    const Clock::time_point now = Clock::now();
    watch_->LookIfDue(*connection_, now);
    connection_->ledger.Begin(message_, now);
  }
  connection_->num_awaited.fetch_add(1, std::memory_order_relaxed);
  watch_->num_awaited_.fetch_add(1);
  watch_->Wake();
}

Charge MessageWatch::Entry::Arrive(int64_t size_bytes) {
  EndWait([&](MessageLedger& ledger) { ledger.Arrive(message_, size_bytes); });
  return std::exchange(message_.reservation, Charge());
}

void MessageWatch::Entry::Drop() {
  EndWait([&](MessageLedger& ledger) { ledger.Drop(message_); });
  message_.reservation = Charge();
}

void MessageWatch::Entry::Refuse() {
  Drop();
  if (connection_ == nullptr) return;
  absl::MutexLock lock(&connection_->mutex);
  connection_->ledger.CountUnread(Clock::now());
}

template <typename End>
void MessageWatch::Entry::EndWait(End end) {
  if (!std::exchange(is_awaiting_, false) || connection_ == nullptr) return;
  {
    absl::MutexLock lock(&connection_->mutex);
    end(connection_->ledger);
    connection_->ledger.CountHeaders(std::exchange(header_bytes_, 0));
    watch_->LookIfDue(*connection_, Clock::now());
  }
  connection_->CountStep();
  connection_->num_awaited.fetch_sub(1, std::memory_order_relaxed);
  watch_->num_awaited_.fetch_sub(1);
}

std::optional<Overrun> MessageWatch::Entry::TakeOverrun() {
  if (connection_ == nullptr) return std::nullopt;
  absl::MutexLock lock(&connection_->mutex);
  return std::exchange(message_.overrun, std::nullopt);
}

MessageWatch::MessageWatch(Admission* admission, const Connections* connections,
                           Clock::duration stall)
    : admission_(admission), connections_(connections), stall_(stall), thread_([this] { Run(); }) {}

MessageWatch::~MessageWatch() {
  {
    absl::MutexLock lock(&mutex_);
    stopping_ = true;
  }
  thread_.join();
}

size_t MessageWatch::ShardOf(const std::string& peer) const {
  return std::hash<std::string>()(peer) % shards_.size();
}

void MessageWatch::CountUnread(const Call& call) {
  const std::shared_ptr<Connection> connection = Find(call);
  if (connection == nullptr) return;
  connection->CountStep();
  absl::MutexLock lock(&connection->mutex);
  connection->ledger.CountHeaders(call.MetadataBytes());
  connection->ledger.CountUnread(Clock::now());
}

ConnectionTraffic MessageWatch::Traffic(const std::string& peer) const {
  const Shard& shard = shards_[ShardOf(peer)];
  absl::MutexLock lock(&shard.mutex);
  const auto found = shard.connections.find(peer);
  if (found == shard.connections.end()) return {};
  const Connection& connection = *found->second;
  return {.num_steps = connection.num_steps.load(std::memory_order_relaxed),
          .is_awaiting = connection.num_awaited.load(std::memory_order_relaxed) > 0 ||
                         connection.num_streams.load(std::memory_order_relaxed) > 0};
}

std::shared_ptr<MessageWatch::Connection> MessageWatch::Find(const Call& call) {
  const std::string& peer = call.peer();
  // All callers of a unix socket have one name.
  if (peer.rfind("ipv", 0) != 0) return nullptr;
  Shard& shard = shards_[ShardOf(peer)];
  absl::MutexLock lock(&shard.mutex);
  std::shared_ptr<Connection>& known = shard.connections[peer];
  if (known != nullptr) return known;
  known = std::make_shared<Connection>(peer, admission_);
  known->is_measured = ReceivedBytes(*known).has_value();
  std::shared_ptr<Connection> connection = known;
  if (shard.connections.size() >= shard.sweep_at) Sweep(shard);
  return connection;
}

void MessageWatch::Sweep(Shard& shard) const {
  for (auto it = shard.connections.begin(); it != shard.connections.end();) {
    const bool is_used = it->second.use_count() > 1;
    it = is_used || ReceivedBytes(*it->second).has_value() ? std::next(it)
                                                           : shard.connections.erase(it);
  }
  shard.sweep_at = std::max(kFirstSweep, 2 * shard.connections.size());
}

void MessageWatch::LookIfDue(Connection& connection, Clock::time_point now) const {
  if (!connection.is_measured || now - connection.ledger.looked_at() < kInterval) return;
  if (const auto bytes = ReceivedBytes(connection)) {
    connection.ledger.Look(static_cast<int64_t>(*bytes), now);
  }
}

void MessageWatch::Wake() {
  if (!is_asleep_.load()) return;
  absl::MutexLock lock(&mutex_);
  is_needed_ = true;
}

void MessageWatch::Run() {
  Clock::time_point last_needed = Clock::now();
  for (int64_t round = 0;; ++round) {
    if (num_awaited_.load() > 0) {
      last_needed = Clock::now();
      LookAtAll(round);
      // What was received and let go again is not all of use for what comes next.
      if (admission_->WasShortOfLate()) {
        ReleaseUnusedHeap(admission_->options().memory_budget_bytes + kMostUnusedBytes);
      }
    }
    absl::MutexLock lock(&mutex_);
    if (Clock::now() - last_needed < kAwake) {
      mutex_.AwaitWithTimeout(absl::Condition(&stopping_), absl::FromChrono(kInterval));
    } else {
      ReleaseUnusedHeap(admission_->options().memory_budget_bytes + kMostUnusedBytes);
      is_asleep_.store(true);
      const auto has_work = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
        return stopping_ || is_needed_ || num_awaited_.load() > 0;
      };
      mutex_.Await(absl::Condition(&has_work));
      is_asleep_.store(false);
      is_needed_ = false;
    }
    if (stopping_) return;
  }
}

void MessageWatch::LookAtAll(int64_t round) {
  std::vector<std::shared_ptr<Connection>> connections;
  for (Shard& shard : shards_) {
    absl::MutexLock lock(&shard.mutex);
    for (const auto& [peer, connection] : shard.connections) {
      if (!connection->is_measured || connection->num_awaited.load() == 0) continue;
      connections.push_back(connection);
    }
  }
  for (const auto& connection : connections) LookAt(*connection, round);
}

void MessageWatch::LookAt(Connection& connection, int64_t round) {
  std::vector<CallPtr> overrun;
  {
    absl::MutexLock lock(&connection.mutex);
    // Streams that wait for their callers are seldom worth a look.
    if (connection.ledger.is_idle() && round % kIdleRounds != 0) return;
    const Clock::time_point now = Clock::now();
    if (const auto bytes = ReceivedBytes(connection)) {
      connection.ledger.Look(static_cast<int64_t>(*bytes), now);
    }
    while (true) {
      const auto found = connection.ledger.Settle(now, admission_->WasShortOfLate(), stall_);
      if (!found.has_value()) break;
      auto& message = static_cast<Entry::Message&>(*found->message);
      message.overrun = found;
      // Ends before its entry does, which is the call's.
      if (CallPtr call = message.entry->call_->weak_from_this().lock()) {
        overrun.push_back(std::move(call));
      }
    }
  }
  for (const CallPtr& call : overrun) call->Deliver(ServerEvent::kOverrun);
}

}  // namespace swiglu::server
