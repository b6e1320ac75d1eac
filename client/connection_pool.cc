// SPDX-License-Identifier: Apache-2.0
//
// Ranks of connections, and what is under way on each.
#include "client/connection_pool.h"

#include <algorithm>
#include <tuple>

#include "absl/strings/str_join.h"
#include "absl/time/clock.h"
#include "client/channel.h"
#include "client/server_address.h"
#include "grpcpp/support/channel_arguments.h"

namespace swiglu::client {
namespace {

// The longest time that a server that pushes back is avoided.
constexpr absl::Duration kLongestAvoidance = absl::Minutes(1);

// How long a silent server is avoided before some calls try it again.
constexpr absl::Duration kSilentAvoidance = absl::Seconds(1);

grpc::ChannelArguments PoolArguments() {
  grpc::ChannelArguments args;
  // A server that comes back is found within a second.
  args.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 100);
  args.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 250);
  // With keepalive on, gRPC sets TCP_USER_TIMEOUT to the timeout given here: a peer that has
  // stopped taking bytes loses the connection, and thereby our borrowed memory, after that time.
  // The pings themselves are rarer than the 5 minutes that servers demand.
  args.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, 10 * 60 * 1000);
  args.SetInt(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 20 * 1000);
  return args;
}

}  // namespace

ConnectionPool::ConnectionPool(const std::vector<std::string>& addresses, int num_connections,
                               const Credentials& credentials)
    : addresses_(addresses),
      opens_(addresses.size(), absl::InfinitePast()),
      answered_(addresses.size(), absl::InfinitePast()),
      silent_until_(addresses.size(), absl::InfinitePast()),
      health_(addresses.size(), ServerHealth::kUnknown),
      channels_(addresses.size() * static_cast<size_t>(num_connections)) {
  for (size_t i = 0; i < channels_.size(); ++i) {
    PooledChannel& channel = channels_[i];
    channel.server = static_cast<int>(i % addresses.size());
    channel.address = addresses[i % addresses.size()];
    channel.channel = MakeChannel(channel.address, credentials, PoolArguments());
    channel.stub = std::make_unique<grpc::GenericStub>(channel.channel);
  }
}

PooledChannel* ConnectionPool::Acquire(int64_t bytes, const ServerSet& tried) {
  absl::MutexLock lock(&mutex_);
  const bool has_choice = num_servers() > 1;
  const absl::Time now = has_choice ? absl::Now() : absl::InfinitePast();
  // Among equal connections, servers take turns.
  const size_t first = has_choice ? turn_++ % addresses_.size() : 0;
  PooledChannel* best = nullptr;
  Rank best_rank = Rank::kReady;
  const auto cost_of = [&](const PooledChannel& channel,
                           const Rank& rank) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    const absl::Time opens =
        rank == Rank::kPushesBack ? opens_[channel.server] : absl::InfinitePast();
    return std::make_tuple(rank >= Rank::kPushesBack, has_choice && tried.Has(channel.server), rank,
                           opens, channel.pending_bytes, channel.num_pending);
  };
  for (size_t i = 0; i < channels_.size(); ++i) {
    PooledChannel& channel = channels_[(first + i) % channels_.size()];
    // Of one server, only a connection that failed is asked for its state.
    const Rank rank = has_choice || channel.is_lost ? RankOf(channel, now) : Rank::kReady;
    if (best != nullptr && cost_of(channel, rank) >= cost_of(*best, best_rank)) continue;
    best = &channel;
    best_rank = rank;
  }
  best->pending_bytes += bytes;
  ++best->num_pending;
  best->is_used.store(true, std::memory_order_relaxed);
  return best;
}

void ConnectionPool::Release(PooledChannel* channel, int64_t bytes, const RequestEnd& end) {
  absl::MutexLock lock(&mutex_);
  channel->pending_bytes -= bytes;
  --channel->num_pending;
  channel->is_lost = end.is_lost;
  if (num_servers() == 1) return;
  const absl::Time now = absl::Now();
  if (end.is_answered) answered_[channel->server] = now;
  if (!end.pushback || *end.pushback <= absl::ZeroDuration()) return;
  absl::Time& opens = opens_[channel->server];
  opens = std::max(opens, now + std::min(*end.pushback, kLongestAvoidance));
}

void ConnectionPool::AvoidIfSilent(int server, absl::Time since) {
  absl::MutexLock lock(&mutex_);
  if (num_servers() == 1 || answered_[server] >= since) return;
  silent_until_[server] = absl::Now() + kSilentAvoidance;
}

bool ConnectionPool::IsConnecting() {
  if (num_servers() == 1) return false;
  bool is_connecting = false;
  for (const PooledChannel& channel : channels_) {
    const grpc_connectivity_state state = channel.channel->GetState(/*try_to_connect=*/true);
    if (state == GRPC_CHANNEL_READY) return false;
    if (state != GRPC_CHANNEL_TRANSIENT_FAILURE) is_connecting = true;
  }
  return is_connecting;
}

void ConnectionPool::Reconnect() {
  for (const PooledChannel& channel : channels_) {
    if (channel.is_used.load(std::memory_order_relaxed)) channel.channel->GetState(true);
  }
}

std::shared_ptr<grpc::Channel> ConnectionPool::ConnectedChannel(int server) const {
  for (const PooledChannel& channel : channels_) {
    if (channel.server != server) continue;
    if (channel.channel->GetState(false) == GRPC_CHANNEL_READY) return channel.channel;
  }
  return nullptr;
}

void ConnectionPool::SetHealth(int server, ServerHealth health) {
  absl::MutexLock lock(&mutex_);
  health_[server] = health;
}

bool ConnectionPool::HasOther(const ServerSet& tried) {
  absl::MutexLock lock(&mutex_);
  const absl::Time now = absl::Now();
  return std::any_of(channels_.begin(), channels_.end(), [&](const PooledChannel& channel) {
    mutex_.AssertHeld();
    return !tried.Has(channel.server) && RankOf(channel, now) <= Rank::kSilent;
  });
}

absl::Duration ConnectionPool::TimeUntilOpen() {
  absl::MutexLock lock(&mutex_);
  const absl::Time now = absl::Now();
  absl::Duration least = absl::InfiniteDuration();
  for (const absl::Time opens : opens_) {
    if (opens > now) least = std::min(least, opens - now);
  }
  return least;
}

ConnectionPool::Rank ConnectionPool::RankOf(const PooledChannel& channel, absl::Time now) const {
  if (now < opens_[channel.server]) return Rank::kPushesBack;
  const grpc_connectivity_state state = channel.channel->GetState(/*try_to_connect=*/true);
  if (state == GRPC_CHANNEL_TRANSIENT_FAILURE) return Rank::kLost;
  if (health_[channel.server] == ServerHealth::kNotServing) return Rank::kNotServing;
  if (now < silent_until_[channel.server]) return Rank::kSilent;
  return state == GRPC_CHANNEL_READY ? Rank::kReady : Rank::kConnecting;
}

bool ConnectionPool::IsGroupOfServers(int server) const { return IsGroup(addresses_[server]); }

std::string ConnectionPool::AddressesText() const { return absl::StrJoin(addresses_, ","); }

}  // namespace swiglu::client
