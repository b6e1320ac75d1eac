// SPDX-License-Identifier: Apache-2.0
//
// Writes the lines of the log to a file descriptor, whether or not somebody reads it. Part of the
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

// Writes lines in the order in which they come. Before `Start`, the thread that has a line writes
// it, and blocks if the descriptor blocks. After `Start`, the writer's own thread writes, and no
// other thread blocks. If nobody reads the descriptor, the latest kMaxWaitingBytes of lines wait.
// Older lines are dropped and counted, and a line in their place says how many. The descriptor's
// flags stay as they are: a pipe that was made non-blocking would be so for the other processes
// that write to it, too. Thread-safe.
class LineWriter {
 public:
  // The largest number of bytes that may wait to be written. What is being written does not count
  // (one line, or lines of kPieceBytes in all).
  static constexpr size_t kMaxWaitingBytes = 256 * 1024;

  // The most that is written at once, if it is several lines. Linux writes this much to a pipe as
  // one piece.
  static constexpr size_t kPieceBytes = 4096;

  // `gap` makes the line that stands for `num_dropped` dropped lines. It is called under a lock.
  LineWriter(int fd, std::function<std::string(int64_t num_dropped)> gap)
      : fd_(fd), gap_(std::move(gap)) {}

  // Ends the thread. Blocks while the thread waits for the descriptor.
  ~LineWriter();
  LineWriter(const LineWriter&) = delete;
  LineWriter& operator=(const LineWriter&) = delete;

  // From here on a thread of this writer writes. Returns false, and changes nothing, if no thread
  // can be started. REQUIRES: not started.
  bool Start();

  // Writes `line`, which ends with a newline, or drops it where it cannot be written. May throw
  // std::bad_alloc; then the line is neither written nor counted.
  void Write(std::string line);

  // Blocks until every line so far is written or dropped, for `timeout` at most. Returns whether
  // they are.
  bool Flush(std::chrono::nanoseconds timeout);

  // As Flush, from a signal handler.
  void FlushInSignalHandler(std::chrono::milliseconds timeout) const;

  // Counts a line that was lost before it came to Write.
  void CountDropped() { num_dropped_.fetch_add(1, std::memory_order_relaxed); }

  // How many lines nobody will see.
  int64_t num_dropped() const { return num_dropped_.load(std::memory_order_relaxed); }

 private:
  void Run();
  // Fills `piece_` with the lines that are next; returns how many they are.
  int64_t TakePiece();
  void PopFront();
  void DropFront();
  // Writes all of `text`, but stops when the descriptor fails. Returns whether it wrote all.
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
