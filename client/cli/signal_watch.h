// SPDX-License-Identifier: Apache-2.0
//
// Handles signals that order the process to end. It does so on a thread of its own, where, unlike
// in a signal handler, any code may run.
#pragma once

#include <signal.h>

#include <atomic>
#include <functional>
#include <thread>

namespace swiglu::cli {

// While it lives, SIGINT, SIGTERM, SIGHUP and SIGQUIT only call a function, one call at a time. If
// the process was started with some of these signals ignored, for example by nohup, they stay
// ignored.
class SignalWatch {
 public:
  // Takes over the signals for this thread and all that it starts. REQUIRES: no other thread runs.
  explicit SignalWatch(std::function<void(int signal)> on_signal);
  // Waits for a call that is in progress. Signals that come later have no effect.
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

// Ends the process as `signal` does without a handler, so that the parent process sees why it
// ended.
[[noreturn]] void EndBy(int signal);

}  // namespace swiglu::cli
