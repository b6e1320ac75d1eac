// SPDX-License-Identifier: Apache-2.0
//
// One RPC on the completion queue, as a mechanism: it turns gRPC's completions into a handler's
// callbacks and keeps itself alive while any are due. What a call means is its handler's business
// (`CallHandler`), chosen by path when its headers are there and nothing has been read yet.
#pragma once

#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "grpcpp/generic/async_generic_service.h"
#include "grpcpp/support/byte_buffer.h"
#include "server/batching/request.h"

namespace swiglu::server {

// Something that a completion queue reports.
class Event {
 public:
  virtual ~Event() = default;
  virtual void Happen(bool ok) = 0;
};

// What the server tells all of its calls.
enum class ServerEvent {
  kHealthChanged,
  // No new work from here on: finish what was accepted, and end.
  kDraining,
  // Time has passed: look for callers that have stopped halfway.
  kTick,
};
inline constexpr int kNumServerEvents = 3;

// The server's I/O threads as a place for work beside polling. Thread-safe.
class TaskQueue {
 public:
  using Task = absl::AnyInvocable<void()>;

  virtual ~TaskQueue() = default;
  // Runs `task`, which may take long, once, on whichever I/O thread comes to it; tasks may run at
  // the same time. REQUIRES: a call is alive until it has run.
  virtual void Post(Task task) = 0;
  // Whether the calling thread is one of them.
  virtual bool IsCurrent() const = 0;
  // On an I/O thread, between these two: it works for long, and another one polls in its place.
  virtual void BeginLongWork() = 0;
  virtual void EndLongWork() = 0;
};

// Messages of this size and more are long work: to copy, to compute on or to send.
inline constexpr size_t kLongMessageBytes = size_t{512} << 10;

// Long work for as long as it lives, if `is_long` and on an I/O thread.
class LongWork {
 public:
  LongWork(TaskQueue& tasks, bool is_long)
      : tasks_(is_long && tasks.IsCurrent() ? &tasks : nullptr) {
    if (tasks_ != nullptr) tasks_->BeginLongWork();
  }
  ~LongWork() {
    if (tasks_ != nullptr) tasks_->EndLongWork();
  }
  LongWork(const LongWork&) = delete;
  LongWork& operator=(const LongWork&) = delete;

 private:
  TaskQueue* const tasks_;
};

// The meaning of one call. Its methods run on the I/O threads, never two at once.
class CallHandler {
 public:
  virtual ~CallHandler() = default;

  // The headers are there.
  virtual void OnStart() = 0;
  // The message that `Call::Read` asked for.
  virtual void OnMessage(grpc::ByteBuffer message) = 0;
  // There is no message for `Call::Read`: the caller is done sending, or is gone.
  virtual void OnNoMessage() = 0;
  // The last `Write`, `WriteAndFinish` or `Finish` is through; `ok` is false if the call broke
  // first.
  virtual void OnWritten(bool ok) = 0;
  // The call is over, finished or broken. The last event but for outstanding reads and writes.
  virtual void OnGone(bool cancelled) = 0;
  // On whichever thread has it to tell.
  virtual void OnServerEvent(ServerEvent event) = 0;
};

class Call;
using CallPtr = std::shared_ptr<Call>;

// A call, from the wait for its headers on. The sending methods may be called from any thread, one
// `Write…` or `Finish` at a time; `Read` likewise, one at a time.
class Call : public std::enable_shared_from_this<Call> {
 public:
  // Where calls come from and go to.
  class Home {
   public:
    virtual ~Home() = default;
    // A call has come in: makes its handler, and waits for the next call.
    virtual std::unique_ptr<CallHandler> OnAccepted(Call& call) = 0;
    // The call is over.
    virtual void OnGone(Call& call) = 0;
    virtual TaskQueue& tasks() = 0;
  };

  explicit Call(Home* home) : home_(home) {}
  Call(const Call&) = delete;
  Call& operator=(const Call&) = delete;

  // Waits for the next call on `queue`.
  void Accept(grpc::AsyncGenericService* service, grpc::ServerCompletionQueue* queue);

  const std::string& path() const { return context_.method(); }
  // When the headers came.
  Clock::time_point started() const { return started_; }
  // The caller's deadline on our clock; `max()` if it has none.
  Clock::time_point Deadline() const;
  // The value of the caller's metadata `key`, or "".
  std::string Metadata(const std::string& key) const;
  // True once the caller has gone. Keeps the call alive.
  std::shared_ptr<const std::atomic<bool>> cancelled() { return {shared_from_this(), &cancelled_}; }

  void Read();
  void Write(const grpc::ByteBuffer& message);
  void WriteAndFinish(const grpc::ByteBuffer& message);
  // Ends the call with `status`; a retryable one tells the caller when to come back.
  void Finish(const absl::Status& status);
  // Breaks the call off: what is being read or written fails soon.
  void Cancel() { context_.TryCancel(); }

  // Tells the handler. From any thread.
  void Deliver(ServerEvent event) { Deliver(Signal::kServerEvent, 1 << static_cast<int>(event)); }

  TaskQueue& tasks() { return home_->tasks(); }

 private:
  // What a handler is told.
  enum class Signal : uint8_t { kRead, kWritten, kGone, kServerEvent };
  static constexpr int kNumSignals = 4;
  // By signal: 0 for none, else bits that say what of it. kRead, kWritten and kGone are true or
  // false; of server events there may be several.
  using Signals = std::array<uint8_t, kNumSignals>;
  static constexpr uint8_t kTrue = 1;
  static constexpr uint8_t kFalse = 2;

  // A tag that calls one of our methods and keeps the call alive until it has.
  template <void (Call::*kMethod)(bool)>
  class CallEvent final : public Event {
   public:
    void* Arm(CallPtr call) {
      call_ = std::move(call);
      return static_cast<Event*>(this);
    }
    void Disarm() { call_.reset(); }
    void Happen(bool ok) override {
      const CallPtr call = std::move(call_);
      (call.get()->*kMethod)(ok);
    }

   private:
    CallPtr call_;
  };

  void OnAccepted(bool ok);
  void OnRead(bool ok) { Deliver(Signal::kRead, ok ? kTrue : kFalse); }
  void OnWritten(bool ok) { Deliver(Signal::kWritten, ok ? kTrue : kFalse); }
  void OnGone(bool ok);

  // Tells the handler now, or leaves it to the thread that is telling it something else.
  void Deliver(Signal signal, uint8_t what);
  // Tells the handler all there is to tell. REQUIRES: `delivering_` is this thread's doing.
  void DeliverAll();
  void Tell(const Signals& signals);

  Home* const home_;
  Clock::time_point started_;
  std::atomic<bool> cancelled_{false};
  grpc::GenericServerContext context_;
  grpc::GenericServerAsyncReaderWriter stream_{&context_};
  grpc::ByteBuffer message_;
  std::unique_ptr<CallHandler> handler_;
  CallEvent<&Call::OnAccepted> accepted_;
  CallEvent<&Call::OnRead> read_;
  CallEvent<&Call::OnWritten> written_;
  CallEvent<&Call::OnGone> gone_;

  absl::Mutex mutex_;
  // Waits to be told.
  Signals signals_ ABSL_GUARDED_BY(mutex_) = {};
  // A thread is inside the handler, or the handler is not made yet.
  bool delivering_ ABSL_GUARDED_BY(mutex_) = true;
};

}  // namespace swiglu::server
