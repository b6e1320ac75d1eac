// SPDX-License-Identifier: Apache-2.0
//
// One RPC on a completion queue. A call turns gRPC's events into callbacks of its handler, and
// keeps itself alive while events are due. The handler (`CallHandler`) knows what the call means.
// It is chosen by the call's path, after the headers have arrived and before anything is read.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "grpcpp/generic/async_generic_service.h"
#include "grpcpp/support/byte_buffer.h"
#include "server/core/clock.h"
#include "server/core/observer.h"
#include "server/core/task_queue.h"
#include "server/transport/io_queue.h"

namespace swiglu::server {

// What the server tells its calls.
enum class ServerEvent {
  kHealthChanged,
  // The server drains: take no new work, finish what was accepted, and end.
  kDraining,
  // Time has passed: look for callers that stall.
  kTick,
  // Sent to one call only: the message that the call awaits cannot go on (MessageWatch).
  kOverrun,
};
inline constexpr int kNumServerEvents = 4;

// The meaning of one call. No two methods of a handler run at the same time: the thread that is
// inside the handler also delivers the events that arrive meanwhile (`Call::Deliver`). So a method
// may run on an I/O thread, on the main thread, or on the thread of the ticker, the acceptor or the
// message watch. `OnStart` always runs on an I/O thread.
class CallHandler {
 public:
  virtual ~CallHandler() = default;

  // The headers have arrived.
  virtual void OnStart() = 0;
  // The message that `Call::Read` asked for. The handler may take the bytes out of it with `Swap`,
  // which is cheaper than a copy or a move of the ByteBuffer.
  virtual void OnMessage(grpc::ByteBuffer& message) = 0;
  // There is no message for `Call::Read`: the caller is done sending, or is gone.
  virtual void OnNoMessage() = 0;
  // The last `Write`, `WriteAndFinish` or `Finish` has ended; `ok` is false if the call broke
  // before.
  virtual void OnWritten(bool ok) = 0;
  // The call is over, finished or broken. After this, the handler may still get the results of
  // reads and writes that have already begun, and server events that were already on their way.
  virtual void OnGone(bool cancelled) = 0;
  // The server tells the call of `event`.
  virtual void OnServerEvent(ServerEvent event) = 0;
};

class Call;
using CallPtr = std::shared_ptr<Call>;

// Chooses the handler of each call. Thread-safe.
class CallRouter {
 public:
  virtual ~CallRouter() = default;
  // Makes the handler of a new call. `num_open` calls exist already, refused ones included.
  virtual std::unique_ptr<CallHandler> MakeHandler(Call& call, int64_t num_open) const = 0;
};

// A call. It exists from the moment when it begins to wait for its headers. Any thread may call
// `Read`, `Write`, `WriteAndFinish` and `Finish`: one `Read` at a time, and one of the other three
// at a time.
class Call final : public RequestOrigin, public std::enable_shared_from_this<Call> {
 public:
  // The owner of calls, which is told of their beginning and end.
  class Home {
   public:
    virtual ~Home() = default;
    // A call has come in: makes its handler, and waits for the next call.
    virtual std::unique_ptr<CallHandler> OnAccepted(Call& call) = 0;
    // The call is over.
    virtual void OnGone(Call& call) = 0;
    // Returns, for the log, who is behind a peer's name.
    virtual std::string DescribePeer(absl::string_view peer) = 0;
    // A call on `queue` is destroyed, and no longer uses its home.
    virtual void OnDestroyed(IoQueue* queue) = 0;
  };

  // A call whose events come from `queue`.
  Call(Home* home, IoQueue* queue) : destruction_notice_{home, queue}, home_(home), queue_(queue) {}
  Call(const Call&) = delete;
  Call& operator=(const Call&) = delete;

  // Waits for the next call of `service`.
  void Accept(grpc::AsyncGenericService* service);

  const std::string& path() const { return context_.method(); }
  // The peer's name, as Connections knows it.
  const std::string& peer() const { return peer_; }
  // When the headers arrived.
  Clock::time_point started() const { return started_; }
  // The caller's deadline on our clock; `max()` if it has none.
  Clock::time_point Deadline() const;
  absl::string_view Metadata(absl::string_view key) const override;
  // Whether the caller sent metadata `key`, even if its value is empty.
  bool HasMetadata(absl::string_view key) const;
  // The size of the caller's metadata: names, values, and 32 bytes for each entry, as HTTP/2
  // counts.
  int64_t MetadataBytes() const { return metadata_bytes_; }
  std::string DescribePeer() const override { return home_->DescribePeer(peer()); }
  // True once the caller has gone.
  bool is_cancelled() const { return cancelled_.load(std::memory_order_relaxed); }
  // The same flag, for other objects. The pointer keeps the call alive.
  std::shared_ptr<const std::atomic<bool>> cancelled() { return {shared_from_this(), &cancelled_}; }

  void Read();
  void Write(const grpc::ByteBuffer& message);
  void WriteAndFinish(const grpc::ByteBuffer& message);
  // Sends metadata with the call's final status. REQUIRES: neither `WriteAndFinish` nor `Finish`
  // has been called, and no other thread calls this.
  void AddTrailer(const std::string& key, const std::string& value) {
    context_.AddTrailingMetadata(key, value);
  }
  // Ends the call with `status`. If the status is retryable, the caller is also told when to try
  // again.
  void Finish(const absl::Status& status);
  // Cancels the call: reads and writes that have begun fail soon.
  void Cancel() { context_.TryCancel(); }

  // Tells the handler of `event`, on the calling thread. If another thread is inside the handler,
  // that thread tells it instead. Any thread may call this.
  void Deliver(ServerEvent event) {
    Deliver(Signals{1} << (kFirstServerEvent + static_cast<int>(event)));
  }

  TaskQueue& tasks() { return *queue_; }
  // REQUIRES: the call has come in.
  CallHandler& handler() { return *handler_; }

  // The call's place in the list of its home's live calls, and its neighbours in the list. Guarded
  // by the locks of LiveCalls.
  enum class Place : uint8_t { kNew, kListed, kRemoved };
  Place place = Place::kNew;
  Call* previous = nullptr;
  Call* next = nullptr;

 private:
  // Tells the home that the call is destroyed. This member is destroyed last.
  struct DestructionNotice {
    ~DestructionNotice() { home->OnDestroyed(queue); }
    Home* const home;
    IoQueue* const queue;
  };

  // What the handler still has to be told, one bit for each thing.
  using Signals = uint32_t;
  static constexpr Signals kRead = 1 << 0;
  static constexpr Signals kNotRead = 1 << 1;
  static constexpr Signals kWritten = 1 << 2;
  static constexpr Signals kNotWritten = 1 << 3;
  static constexpr Signals kEnded = 1 << 4;
  static constexpr Signals kCancelled = 1 << 5;
  static constexpr int kFirstServerEvent = 6;  // from this bit on, one bit for each ServerEvent
  // Set while a thread is inside the handler, and until the handler is made.
  static constexpr Signals kDelivering = 1u << 31;

  // A tag that calls one method of the call, and keeps the call alive until that method has run.
  template <void (Call::*kMethod)(bool)>
  class CallEvent final : public Event {
   public:
    void* Arm(CallPtr call) {
      call_ = std::move(call);
      return static_cast<Event*>(this);
    }
    void Disarm() { call_.reset(); }
    void OnEvent(bool ok) override {
      const CallPtr call = std::move(call_);
      (call.get()->*kMethod)(ok);
    }

   private:
    CallPtr call_;
  };

  int64_t CountMetadata() const;
  void OnAccepted(bool ok);
  void OnRead(bool ok) { Deliver(ok ? kRead : kNotRead); }
  void OnWritten(bool ok) { Deliver(ok ? kWritten : kNotWritten); }
  void OnGone(bool ok);

  // Tells the handler now, or leaves that to the thread that is inside the handler.
  void Deliver(Signals signals);
  // Tells the handler everything that is due. REQUIRES: this thread has set `kDelivering`, or has
  // made the handler.
  void DeliverAll();
  void Tell(Signals signals);

  const DestructionNotice destruction_notice_;  // the first member
  Home* const home_;
  IoQueue* const queue_;
  Clock::time_point started_;
  int64_t metadata_bytes_ = 0;
  std::string peer_;  // asked for early, because gRPC forgets it when the call ends
  std::atomic<bool> cancelled_{false};
  grpc::GenericServerContext context_;
  grpc::GenericServerAsyncReaderWriter stream_{&context_};
  grpc::ByteBuffer message_;
  std::unique_ptr<CallHandler> handler_;
  CallEvent<&Call::OnAccepted> accepted_;
  CallEvent<&Call::OnRead> read_;
  CallEvent<&Call::OnWritten> written_;
  CallEvent<&Call::OnGone> gone_;

  std::atomic<Signals> signals_{kDelivering};
};

}  // namespace swiglu::server
