// SPDX-License-Identifier: Apache-2.0
//
// Streams of health states, on a queue of their own.
#include "client/health_watch.h"

#include <utility>

#include "absl/time/clock.h"
#include "grpcpp/client_context.h"
#include "proto/health.grpc.pb.h"

namespace swiglu::client {
namespace {

using grpc::health::v1::HealthCheckRequest;
using grpc::health::v1::HealthCheckResponse;

// How often a call looks after the streams.
constexpr int64_t kLookIntervalMs = 10;

// How long no stream begins after the last one has ended, while the connection is up.
constexpr absl::Duration kPause = absl::Seconds(1);
constexpr absl::Duration kPauseIfUnimplemented = absl::Minutes(1);

ServerHealth HealthOf(HealthCheckResponse::ServingStatus status) {
  switch (status) {
    case HealthCheckResponse::SERVING:
      return ServerHealth::kServing;
    case HealthCheckResponse::NOT_SERVING:
      return ServerHealth::kNotServing;
    default:
      return ServerHealth::kUnknown;
  }
}

}  // namespace

// One stream of states, of the server as a whole. Each of its operations ends in one event.
class HealthWatch::Stream final : public Event {
 public:
  Stream(ConnectionPool* pool, int server, const std::shared_ptr<grpc::Channel>& channel,
         EventQueue* queue)
      : pool_(pool),
        server_(server),
        queue_(queue),
        stub_(grpc::health::v1::Health::NewStub(channel)) {
    queue_->Expect();
    reader_ = stub_->AsyncWatch(&context_, HealthCheckRequest(), queue_->queue(), tag());
  }

  void Cancel() { context_.TryCancel(); }

  bool has_ended() const { return state_ == State::kEnded; }
  const grpc::Status& status() const { return status_; }

  void OnEvent(bool ok) override {
    if (state_ == State::kFinishing) {
      state_ = State::kEnded;
      return;
    }
    if (ok && state_ == State::kReading) pool_->SetHealth(server_, HealthOf(response_.status()));
    queue_->Expect();
    if (ok) {
      state_ = State::kReading;
      return reader_->Read(&response_, tag());
    }
    state_ = State::kFinishing;
    reader_->Finish(&status_, tag());
  }

 private:
  enum class State { kStarting, kReading, kFinishing, kEnded };

  Event* tag() { return this; }

  ConnectionPool* const pool_;
  const int server_;
  EventQueue* const queue_;
  const std::unique_ptr<grpc::health::v1::Health::Stub> stub_;
  grpc::ClientContext context_;
  State state_ = State::kStarting;
  HealthCheckResponse response_;
  grpc::Status status_;
  std::unique_ptr<grpc::ClientAsyncReader<HealthCheckResponse>> reader_;
};

HealthWatch::HealthWatch(ConnectionPool* pool) : pool_(pool) {
  if (pool->num_servers() > 1) watched_.resize(static_cast<size_t>(pool->num_servers()));
}

HealthWatch::~HealthWatch() {
  absl::MutexLock lock(&mutex_);
  for (const Watched& watched : watched_) {
    if (watched.stream) watched.stream->Cancel();
  }
  while (queue_.num_expected() > 0) queue_.TakeOne(Wait::kSleep);
}

void HealthWatch::LookAfterIfDue() {
  if (pool_->num_servers() == 1) return;
  const int64_t now_ms = absl::ToUnixMillis(absl::Now());
  int64_t looked_ms = looked_ms_.load(std::memory_order_relaxed);
  if (now_ms >= looked_ms && now_ms < looked_ms + kLookIntervalMs) return;
  if (looked_ms_.compare_exchange_strong(looked_ms, now_ms, std::memory_order_relaxed)) LookAfter();
}

void HealthWatch::LookAfter() {
  if (pool_->num_servers() == 1 || !mutex_.TryLock()) return;
  queue_.Poll();
  const absl::Time now = absl::Now();
  for (int server = 0; server < pool_->num_servers(); ++server) LookAfter(server, now);
  mutex_.Unlock();
}

void HealthWatch::LookAfter(int server, absl::Time now) {
  // One of several would speak for all.
  if (pool_->IsGroupOfServers(server)) return;
  Watched& watched = watched_[server];
  if (watched.stream != nullptr && !watched.stream->has_ended()) return;
  if (watched.stream != nullptr) {
    const grpc::StatusCode code = watched.stream->status().error_code();
    watched.stream.reset();
    const bool is_unimplemented = code == grpc::StatusCode::UNIMPLEMENTED;
    watched.next = now + (is_unimplemented ? kPauseIfUnimplemented : kPause);
    // A server that drains ends its streams before its connections.
    if (code != grpc::StatusCode::UNAVAILABLE) pool_->SetHealth(server, ServerHealth::kUnknown);
  }
  std::shared_ptr<grpc::Channel> channel = pool_->ConnectedChannel(server);
  if (channel == nullptr) {
    pool_->SetHealth(server, ServerHealth::kUnknown);
    watched.next = absl::InfinitePast();
  } else if (now >= watched.next) {
    watched.stream = std::make_unique<Stream>(pool_, server, channel, &queue_);
  }
}

}  // namespace swiglu::client
