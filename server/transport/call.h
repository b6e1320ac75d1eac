// SPDX-License-Identifier: Apache-2.0
//
// One RPC on the completion queue, as a mechanism. It turns gRPC's completions into a handler's
// callbacks, and keeps itself alive while completions are due. The handler (`CallHandler`) knows
// what the call means. It is chosen by the path, when the headers are there and nothing has been
// read yet.
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

// What the server tells all of its calls.
enum class ServerEvent {
  kHealthChanged,
  // No new work from here on: finish what was accepted, and end.
  kDraining,
  // Time has passed: look for callers that have stopped halfway.
  kTick,
  // To one call: the message that it awaits cannot go on (MessageWatch).
  kOverrun,
};
inline constexpr int kNumServerEvents = 4;

// The meaning of one call. No two of its methods run at the same time. A thread that is inside a
// handler (`Call::Deliver`) also delivers the events that arrive meanwhile. So an I/O thread, the
// main thread, and the threads of the ticker, the acceptor and the message watch may all run a
// handler. `OnStart` always runs on an I/O thread.
class CallHandler {
 public:
  virtual ~CallHandler() = default;

  // The headers are there.
  virtual void OnStart() = 0;
  // The message that `Call::Read` asked for. The handler may take the bytes out of it with `Swap`;
  // a copy or a move of a ByteBuffer costs an allocation and a count of each slice.
  virtual void OnMessage(grpc::ByteBuffer& message) = 0;
  // There is no message for `Call::Read`: the caller is done sending, or is gone.
  virtual void OnNoMessage() = 0;
  // The last `Write`, `WriteAndFinish` or `Finish` has ended; `ok` is false if the call broke
  // first.
  virtual void OnWritten(bool ok) = 0;
  // The call is over, finished or broken. After this, only the results of reads and writes that
  // have already begun may come.
  virtual void OnGone(bool cancelled) = 0;
  // The server has something to tell.
  virtual void OnServerEvent(ServerEvent event) = 0;
};

class Call;
using CallPtr = std::shared_ptr<Call>;

// Knows what each call means. Thread-safe.
class CallRouter {
 public:
  virtual ~CallRouter() = default;
  // Makes the handler of a new call; `num_open` calls are open already.
  virtual std::unique_ptr<CallHandler> MakeHandler(Call& call, int64_t num_open) const = 0;
};

// A call. It exists from the moment when it waits for its headers. The sending methods may be
// called from any thread, one `Write…` or `Finish` at a time; `Read` likewise, one at a time.
class Call final : public RequestOrigin, public std::enable_shared_from_this<Call> {
 public:
  // Where calls come from and go to.
  class Home {
   public:
    virtual ~Home() = default;
    // A call has come in: makes its handler, and waits for the next call.
    virtual std::unique_ptr<CallHandler> OnAccepted(Call& call) = 0;
    // The call is over.
    virtual void OnGone(Call& call) = 0;
    // Who is behind a peer's name, for the log.
    virtual std::string DescribePeer(absl::string_view peer) = 0;
    // A call on `queue` is gone, and no longer uses its home.
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
  // When the headers came.
  Clock::time_point started() const { return started_; }
  // The caller's deadline on our clock; `max()` if it has none.
  Clock::time_point Deadline() const;
  absl::string_view Metadata(absl::string_view key) const override;
  // The size of the caller's metadata: names, values, and 32 bytes for each entry, as HTTP/2
  // counts.
  int64_t MetadataBytes() const { return metadata_bytes_; }
  std::string DescribePeer() const override { return home_->DescribePeer(peer()); }
  // True once the caller has gone.
  bool is_cancelled() const { return cancelled_.load(std::memory_order_relaxed); }
  // The same flag, for other objects. It keeps the call alive.
  std::shared_ptr<const std::atomic<bool>> cancelled() { return {shared_from_this(), &cancelled_}; }

  void Read();
  void Write(const grpc::ByteBuffer& message);
  void WriteAndFinish(const grpc::ByteBuffer& message);
  // Ends the call with `status`. If the status is retryable, the caller is also told when to try
  // again.
  void Finish(const absl::Status& status);
  // Breaks the call off: what is being read or written fails soon.
  void Cancel() { context_.TryCancel(); }

  // Tells the handler, on the calling thread unless another thread is inside the handler. From any
  // thread.
  void Deliver(ServerEvent event) {
    Deliver(Signals{1} << (kFirstServerEvent + static_cast<int>(event)));
  }

  TaskQueue& tasks() { return *queue_; }
  // Once the call has come in.
  CallHandler& handler() { return *handler_; }

  // The call's place in the list of its home's live calls, and its neighbours in the list. Guarded
  // by the locks of LiveCalls.
  enum class Place : uint8_t { kNew, kListed, kRemoved };
  Place place = Place::kNew;
  Call* previous = nullptr;
  Call* next = nullptr;

 private:
  // Tells the home of the call's end. This member is destroyed last.
  struct DestructionNotice {
    ~DestructionNotice() { home->OnDestroyed(queue); }
    Home* const home;
    IoQueue* const queue;
  };

  // Things to tell the handler. A bit is set until the handler has been told.
  using Signals = uint32_t;
  static constexpr Signals kRead = 1 << 0;
  static constexpr Signals kNotRead = 1 << 1;
  static constexpr Signals kWritten = 1 << 2;
  static constexpr Signals kNotWritten = 1 << 3;
  static constexpr Signals kEnded = 1 << 4;
  static constexpr Signals kCancelled = 1 << 5;
  static constexpr int kFirstServerEvent = 6;  // from this bit on, one bit for each ServerEvent
  // A thread is inside the handler, or the handler is not made yet.
  static constexpr Signals kDelivering = 1u << 31;

  // A tag that calls one of our methods and keeps the call alive until that method has run.
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
  // Tells the handler everything that is due. REQUIRES: this thread has set `kDelivering`, or is
  // the one that makes the handler.
  void DeliverAll();
  void Tell(Signals signals);

  const DestructionNotice destruction_notice_;  // the first member
  Home* const home_;
  IoQueue* const queue_;
  Clock::time_point started_;
  int64_t metadata_bytes_ = 0;
  std::string peer_;  // asked for at the beginning: at the end gRPC no longer knows it
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
