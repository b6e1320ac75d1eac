// SPDX-License-Identifier: Apache-2.0
//
// Orders to end, taken on a thread of their own, where any code may run.
#pragma once

#include <signal.h>

#include <atomic>
#include <functional>
#include <thread>

namespace swiglu::cli {

// While it lives, SIGINT, SIGTERM, SIGHUP and SIGQUIT do nothing but call a function, one call at a
// time; those that the process was started to ignore, as by nohup, stay ignored.
class SignalWatch {
 public:
  // Takes over the signals for this thread and all that it starts. REQUIRES: no other thread runs.
  explicit SignalWatch(std::function<void(int signal)> on_signal);
  // Waits for a call that is in progress. What comes later has no effect.
  ~SignalWatch();
  SignalWatch(const SignalWatch&) = delete;
  SignalWatch& operator=(const SignalWatch&) = delete;

 private:
  void Wait();

  const std::function<void(int signal)> on_signal_;
  sigset_t signals_;
  std::atomic<bool> is_over_{false};
  std::thread thread_;
};

// Ends the process as `signal` does without a handler, so that whoever waits for it sees why.
[[noreturn]] void EndBy(int signal);

}  // namespace swiglu::cli
