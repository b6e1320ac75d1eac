// SPDX-License-Identifier: Apache-2.0
//
// Handles the signals that ask the process to end, on a thread of its own. This thread may run any
// code; a signal handler may not.
#pragma once

#include <signal.h>

#include <atomic>
#include <functional>
#include <thread>

namespace swiglu::cli {

// While this object lives, SIGINT, SIGTERM, SIGHUP and SIGQUIT only make its thread call a
// function, one call at a time. A signal that was ignored when the process started, for example
// because of nohup, stays ignored.
class SignalWatch {
 public:
  // Takes over the signals for the calling thread and for the threads that it starts. REQUIRES: no
  // other thread runs.
  explicit SignalWatch(std::function<void(int signal)> on_signal);
  // Waits until a call in progress has returned. Later signals have no effect.
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

// Ends the process as `signal` does by default, so that the parent process sees which signal it
// was.
[[noreturn]] void EndBy(int signal);

}  // namespace swiglu::cli
