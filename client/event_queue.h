// SPDX-License-Identifier: Apache-2.0
//
// Where the events of calls happen: gRPC's completion queues, and who takes events from them. A
// call that blocks takes its own events. All others happen on a few threads of the connection.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "client/channel.h"
#include "grpc/support/time.h"
#include "grpcpp/alarm.h"
#include "grpcpp/completion_queue.h"

namespace swiglu::client {

// Something that a completion queue reports.
class Event {
 public:
  virtual ~Event() = default;
  virtual void OnEvent(bool ok) = 0;
};

// Something that is told when a time has come.
class Reminder {
 public:
  virtual void OnTime() = 0;

 protected:
  ~Reminder() = default;
};

// A completion queue that counts the events it will report. Thread-safe, but one thread at a time
// takes events.
class EventQueue {
 public:
  EventQueue() = default;
  ~EventQueue();
  EventQueue(const EventQueue&) = delete;
  EventQueue& operator=(const EventQueue&) = delete;

  grpc::CompletionQueue* queue() { return &queue_; }

  // Notes that something was begun that ends in an event. Call it before that something.
  void Expect();
  int num_expected() const { return num_expected_.load(std::memory_order_acquire); }

  // Takes an event that is expected, and lets it happen. Blocks until there is one, or until the
  // time of a reminder.
  void TakeOne(Wait wait);
  // Tells `reminder` once, in a TakeOne, that `delay` has passed. It takes the place of the
  // reminder before it. Needs no event, unlike a Timer. Only for the thread that takes events.
  void Remind(absl::Duration delay, Reminder* reminder);
  // Takes the reminder back.
  void ForgetReminder();
  // Lets gRPC look after its connections, and takes what events are there. Does not block.
  void Poll();

  // Ends one RunUntilNotified or WaitForWork, now or when it begins.
  void Notify();
  // Takes events until Notify. Meanwhile calls `while_waiting`, unless it is nullptr, every 100 ms.
  void RunUntilNotified(Wait wait, const std::function<void()>* while_waiting = nullptr);
  // Blocks until Notify, until something is expected, or until `timeout` has passed.
  void WaitForWork(absl::Duration timeout);

 private:
  // TakeOne that blocks for `timeout` at most.
  void TakeOneWithin(absl::Duration timeout, Wait wait);
  void Happen(void* tag, bool ok);

  grpc::CompletionQueue queue_;
  Reminder* reminder_ = nullptr;
  gpr_timespec reminder_time_ = gpr_inf_future(GPR_CLOCK_MONOTONIC);
  std::atomic<int> num_expected_{0};
  absl::Mutex mutex_;
  absl::CondVar changed_;
  bool is_notified_ ABSL_GUARDED_BY(mutex_) = false;
};

// Runs a function once, at a time, as an event of a queue. It deletes itself.
class Timer final : public Event {
 public:
  // A negative or past time is now.
  static Timer* Start(EventQueue* queue, absl::Time time, std::function<void()> run);

  // Lets the function run now. REQUIRES: the function has not begun.
  void Hurry() { alarm_.Cancel(); }

 private:
  explicit Timer(std::function<void()> run) : run_(std::move(run)) {}
  void OnEvent(bool ok) override;

  std::function<void()> run_;
  grpc::Alarm alarm_;
};

// The threads of a connection, each with a queue. They sleep while no event is expected, because a
// thread that polls would take the events of calls that block and poll themselves. Thread-safe.
class EventThreads {
 public:
  // `look_after` runs on the first thread, every 100 ms while nothing is expected there. Throws
  // std::system_error if a thread cannot start. REQUIRES: there is at least one.
  EventThreads(int num_threads, std::function<void()> look_after);
  // Calls Stop.
  ~EventThreads();

  // A queue, each in turn.
  EventQueue* Next();
  // The queue of the calling thread, if it is one of these threads. Else the first queue, so that
  // what is started by many threads happens on one, which then rarely sleeps.
  EventQueue* Current();

  // Ends the threads when nothing is expected any more.
  void Stop();

 private:
  struct Worker {
    EventQueue queue;
    std::thread thread;
  };

  void Run(Worker& worker);

  const std::function<void()> look_after_;
  std::atomic<bool> is_stopping_{false};
  std::atomic<unsigned> turn_{0};
  std::vector<Worker> workers_;
};

}  // namespace swiglu::client
