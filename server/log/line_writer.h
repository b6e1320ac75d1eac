// SPDX-License-Identifier: Apache-2.0
//
// Writes the lines of the log to a file descriptor, without blocking the threads that log.
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

// Writes lines in the order of the calls of `Write`. Before `Start`, the calling thread writes its
// line, and blocks if the descriptor blocks. After `Start`, the writer's own thread writes, and no
// other thread blocks. If nobody reads from the descriptor, the latest kMaxWaitingBytes of lines
// wait. Older lines are dropped and counted. A line in their place says how many were dropped. The
// writer does not make the descriptor non-blocking, because that would affect other processes that
// write to the same pipe. Thread-safe.
class LineWriter {
 public:
  // The most bytes that may wait to be written. Lines that are being written do not count.
  static constexpr size_t kMaxWaitingBytes = 256 * 1024;

  // Several lines are written together, as one piece, if they have at most this many bytes. A
  // longer line is a piece of its own. Linux writes up to this many bytes to a pipe as a unit.
  static constexpr size_t kPieceBytes = 4096;

  // `gap` makes the line that replaces `num_dropped` dropped lines. It is called under a lock.
  LineWriter(int fd, std::function<std::string(int64_t num_dropped)> gap)
      : fd_(fd), gap_(std::move(gap)) {}

  // Writes the waiting lines and ends the thread. Blocks while the descriptor blocks.
  ~LineWriter();
  LineWriter(const LineWriter&) = delete;
  LineWriter& operator=(const LineWriter&) = delete;

  // Starts the writer's own thread, which writes from now on. If the thread cannot be started,
  // returns false and changes nothing. REQUIRES: not started.
  bool Start();

  // Takes `line`, which ends with a newline, and writes it now or later. If the write fails, the
  // line is dropped and counted. If this throws std::bad_alloc, the line is neither written nor
  // counted.
  void Write(std::string line);

  // Blocks until all lines so far are written or dropped. Returns false if that takes longer than
  // `timeout`.
  bool Flush(std::chrono::nanoseconds timeout);

  // Like Flush. May be called in a signal handler.
  void FlushInSignalHandler(std::chrono::milliseconds timeout) const;

  // Counts a line that was lost before `Write` was called.
  void CountDropped() { num_dropped_.fetch_add(1, std::memory_order_relaxed); }

  // How many lines were dropped or lost.
  int64_t num_dropped() const { return num_dropped_.load(std::memory_order_relaxed); }

 private:
  void Run();
  // Fills `piece_` with the next lines. Returns their number.
  int64_t TakePiece();
  void PopFront();
  void DropFront();
  // Writes `text`. Returns false if a write fails.
  bool WriteAll(const std::string& text) const;

  const int fd_;
  const std::function<std::string(int64_t)> gap_;

  std::mutex mutex_;
  std::condition_variable changed_;  // a line was added, lines were written, or the writer ends
  std::deque<std::string> waiting_;
  size_t waiting_bytes_ = 0;
  int64_t num_untold_ = 0;  // dropped lines that no line has reported yet
  bool closing_ = false;
  std::thread thread_;  // joinable after `Start`

  std::string piece_;  // only the thread uses it

  // The lines added after `Start`, and how many of them were written or dropped. Atomic, because
  // FlushInSignalHandler reads them.
  std::atomic<int64_t> num_lines_{0};
  std::atomic<int64_t> num_settled_{0};

  std::atomic<int64_t> num_dropped_{0};
};

}  // namespace swiglu::logging
