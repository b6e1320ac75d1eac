// SPDX-License-Identifier: Apache-2.0
//
// A thread that waits for signals with sigwait.
#include "client/cli/signal_watch.h"

#include <unistd.h>

#include <utility>

namespace swiglu::cli {
namespace {

constexpr int kSignals[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT};

bool IsIgnored(int signal) {
  struct sigaction action = {};
  return sigaction(signal, nullptr, &action) == 0 && action.sa_handler == SIG_IGN;
}

}  // namespace

SignalWatch::SignalWatch(std::function<void(int signal)> on_signal)
    : on_signal_(std::move(on_signal)) {
  sigemptyset(&signals_);
  for (const int signal : kSignals) {
    if (!IsIgnored(signal)) sigaddset(&signals_, signal);
  }
  // The destructor wakes the thread with SIGUSR2.
  sigaddset(&signals_, SIGUSR2);
  pthread_sigmask(SIG_BLOCK, &signals_, nullptr);
  thread_ = std::thread([this] { Wait(); });
}

SignalWatch::~SignalWatch() {
  is_over_.store(true);
  pthread_kill(thread_.native_handle(), SIGUSR2);
  thread_.join();
}

void SignalWatch::Wait() {
  while (true) {
    int signal = 0;
    sigwait(&signals_, &signal);
    if (is_over_.load()) return;
    if (signal != SIGUSR2) on_signal_(signal);
  }
}

void EndBy(int signal) {
  ::signal(signal, SIG_DFL);
  sigset_t only;
  sigemptyset(&only);
  sigaddset(&only, signal);
  pthread_sigmask(SIG_UNBLOCK, &only, nullptr);
  raise(signal);
  // The exit code that a shell reports for a process that a signal ended.
  _exit(128 + signal);
}

}  // namespace swiglu::cli
