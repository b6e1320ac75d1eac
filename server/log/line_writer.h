// SPDX-License-Identifier: Apache-2.0
//
// Where the lines of the log go: to a file descriptor that somebody reads, or does not. Part of the
// log.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <mutex>
#include <string>
#include <thread>
#include <utility>

namespace swiglu::logging {

// Writes lines in the order in which they come. At first the thread that has a line writes it, and
// waits where the descriptor makes it wait. After `Start` another thread writes, and no one else
// waits: of the lines that nobody takes the latest kMaxWaitingBytes wait, older ones are dropped
// and counted, and a line says so in their place. The descriptor stays as it is; a pipe that is
// made non-blocking would be so for the other processes that write to it, too. Thread-safe.
class LineWriter {
 public:
  // What may wait to be written, beside what is being written (a line, or kPieceBytes of them).
  static constexpr size_t kMaxWaitingBytes = 256 * 1024;

  // The most that is written at once, if it is several lines: what Linux writes to a pipe whole.
  static constexpr size_t kPieceBytes = 4096;

  // `gap` makes the line that stands for so many dropped ones. It is called under a lock.
  LineWriter(int fd, std::function<std::string(int64_t num_dropped)> gap)
      : fd_(fd), gap_(std::move(gap)) {}

  // Ends the thread, which may wait for the descriptor until then.
  ~LineWriter();
  LineWriter(const LineWriter&) = delete;
  LineWriter& operator=(const LineWriter&) = delete;

  // From here on a thread of this writer writes. False if no thread is to be had: then all stays as
  // it is. REQUIRES: not started.
  bool Start();

  // Writes `line`, which ends with a newline, or drops it where it cannot be written. May throw
  // std::bad_alloc; then it is neither written nor counted.
  void Write(std::string line);

  // Blocks until every line so far is written or dropped, for `timeout` at most. Returns whether
  // they are.
  bool Flush(std::chrono::nanoseconds timeout);

  // As Flush, from a signal handler.
  void FlushInSignalHandler(std::chrono::milliseconds timeout) const;

  // Counts a line that did not even come to Write.
  void CountDropped() { num_dropped_.fetch_add(1, std::memory_order_relaxed); }

  // How many lines nobody will see.
  int64_t num_dropped() const { return num_dropped_.load(std::memory_order_relaxed); }

 private:
  void Run();
  // Fills `piece_` with the lines that are next; returns how many they are.
  int64_t TakePiece();
  void PopFront();
  void DropFront();
  // All of `text`, or nothing more once the descriptor fails. Returns whether it was all.
  bool WriteAll(const std::string& text) const;

  const int fd_;
  const std::function<std::string(int64_t)> gap_;

  std::mutex mutex_;
  std::condition_variable changed_;  // a line came, lines were written, or the writer ends
  std::deque<std::string> waiting_;
  size_t waiting_bytes_ = 0;
  int64_t num_untold_ = 0;  // dropped in front of `waiting_`
  bool closing_ = false;
  std::thread thread_;  // joinable once it is started

  std::string piece_;  // for the thread alone

  // For FlushInSignalHandler, too: how many lines came, and how many of them were written or
  // dropped.
  std::atomic<int64_t> num_lines_{0};
  std::atomic<int64_t> num_settled_{0};

  std::atomic<int64_t> num_dropped_{0};
};

}  // namespace swiglu::logging
