// SPDX-License-Identifier: Apache-2.0
//
// Messages on streams: one written and one read for each call.
#include "client/call_streams.h"

#include <algorithm>
#include <atomic>
#include <utility>

#include "absl/strings/str_cat.h"
#include "client/infer_codec.h"
#include "grpcpp/client_context.h"
#include "grpcpp/generic/generic_stub.h"

namespace swiglu::client {

// gRPC cancels what is still open of its call when this object is destroyed.
class CallStreams::Stream final : private Event {
 public:
  Stream(CallStreams* owner, PooledChannel* channel, absl::Time now)
      : owner_(*owner), channel_(channel), opened_(now) {
    channel_->num_streams.fetch_add(1, std::memory_order_relaxed);
    // The headers leave with the first message.
    context_.set_initial_metadata_corked(true);
    stream_ = channel->stub->PrepareCall(&context_, kModelStreamInfer, owner_.queue_->queue());
    stream_->StartCall(nullptr);
  }
  ~Stream() override { channel_->num_streams.fetch_sub(1, std::memory_order_relaxed); }

  const PooledChannel* channel() const { return channel_; }
  bool has_answered() const { return has_answered_; }
  bool IsOld(absl::Time now) const { return now - opened_ >= kMostAge; }

  void Send(const grpc::ByteBuffer& message) {
    num_events_ = 2;
    owner_.queue_->Expect();
    owner_.queue_->Expect();
    stream_->Write(message, static_cast<Event*>(this));
    stream_->Read(&answer_, static_cast<Event*>(this));
  }

  // Thread-safe while a message is under way.
  void Cancel() {
    is_cancelled_.store(true, std::memory_order_relaxed);
    context_.TryCancel();
  }

 private:
  // The owner may destroy the stream in OnEnd.
  void OnEvent(bool ok) override {
    is_broken_ |= !ok;
    if (--num_events_ > 0) return;
    owner_.StopCancellation();
    if (is_broken_ || is_cancelled_.load(std::memory_order_relaxed)) {
      return owner_.OnEnd(absl::nullopt);
    }
    has_answered_ = true;
    owner_.OnEnd(std::exchange(answer_, {}));
  }

  CallStreams& owner_;
  PooledChannel* const channel_;
  const absl::Time opened_;
  grpc::ClientContext context_;
  std::unique_ptr<grpc::GenericClientAsyncReaderWriter> stream_;
  grpc::ByteBuffer answer_;
  int num_events_ = 0;  // that are expected
  bool has_answered_ = false;
  bool is_broken_ = false;
  std::atomic<bool> is_cancelled_{false};
};

CallStreams::CallStreams(ConnectionPool* pool, EventQueue* queue) : pool_(pool), queue_(queue) {}

CallStreams::~CallStreams() = default;

bool CallStreams::Take(int64_t bytes, const ServerSet& tried, absl::Time now) {
  if (num_refusals_ > 0) {
    --num_refusals_;
    return false;
  }
  // A unary RPC waits for the first of several servers.
  if (stream_ != nullptr || pool_->IsConnecting()) return false;
  channel_ = pool_->Acquire(bytes, tried);
  bytes_ = bytes;
  stream_ = FindOrOpen(channel_, now);
  if (stream_ == nullptr) {
    // Nothing is known of the connection.
    pool_->Release(channel_, bytes_, {.is_lost = true});
    return false;
  }
  used_ = now;
  id_ = absl::StrCat(++num_calls_);
  return true;
}

CallStreams::Stream* CallStreams::FindOrOpen(PooledChannel* channel, absl::Time now) {
  const auto is_gone = [=](const auto& stream) {
    return stream->channel() == channel && stream->IsOld(now);
  };
  streams_.erase(std::remove_if(streams_.begin(), streams_.end(), is_gone), streams_.end());
  const auto is_there = [=](const auto& stream) { return stream->channel() == channel; };
  const auto found = std::find_if(streams_.begin(), streams_.end(), is_there);
  if (found != streams_.end()) return found->get();
  if (channel->num_streams.load(std::memory_order_relaxed) >= kMostOnConnection) return nullptr;
  return streams_.emplace_back(std::make_unique<Stream>(this, channel, now)).get();
}

void CallStreams::Send(OutgoingMessage message, absl::Duration timeout, Cancellation* cancellation,
                       Done done) {
  cancellation_ = cancellation;
  done_ = std::move(done);
  outcome_ = {.answer = absl::nullopt, .channel = channel_, .bytes_sent = message.size_bytes};
  grpc::ByteBuffer buffer(message.slices.data(), message.slices.size());
  message.slices.clear();
  queue_->Remind(stream_->has_answered() ? timeout : std::min(timeout, kFirstAnswerTimeout), this);
  stream_->Send(buffer);
  if (cancellation_ != nullptr) cancellation_->SetStop([stream = stream_] { stream->Cancel(); });
}

void CallStreams::StopCancellation() {
  if (cancellation_ != nullptr) cancellation_->ClearStop();
}

void CallStreams::OnTime() { stream_->Cancel(); }

void CallStreams::OnEnd(absl::optional<grpc::ByteBuffer> answer) {
  queue_->ForgetReminder();
  const bool is_broken = !answer.has_value();
  outcome_.answer = std::move(answer);
  if (is_broken) NoteFailure();
  // The next call asks for the state of a connection that was lost.
  pool_->Release(channel_, bytes_, {.is_answered = !is_broken, .is_lost = is_broken});
  WhenRepaid(&loan_, queue_, [this] { Finish(); });
}

std::vector<std::shared_ptr<void>> CallStreams::TakeStreams() {
  std::vector<std::shared_ptr<void>> taken;
  for (std::unique_ptr<Stream>& stream : streams_) {
    taken.push_back(std::shared_ptr<Stream>(std::move(stream)));
  }
  streams_.clear();
  return taken;
}

void CallStreams::NoteFailure() {
  streams_.clear();
  num_refusals_ = num_refusals_after_failure_;
  num_refusals_after_failure_ = std::min(2 * num_refusals_after_failure_, kMostRefusals);
}

void CallStreams::Finish() {
  stream_ = nullptr;
  Done done = std::move(done_);
  std::move(done)(std::move(outcome_));
}

}  // namespace swiglu::client
