// SPDX-License-Identifier: Apache-2.0
//
// Keeps lines in a deque, from the front of which a thread takes and writes them.
#include "server/log/line_writer.h"

#include <poll.h>
#include <signal.h>
#include <time.h>
#include <unistd.h>

#include <cerrno>
#include <new>
#include <system_error>
#include <utility>

namespace swiglu::logging {

LineWriter::~LineWriter() {
  if (!thread_.joinable()) return;
  {
    const std::lock_guard lock(mutex_);
    closing_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

bool LineWriter::Start() {
  // Blocks all signals in the new thread. If the reader is gone, `write` fails without SIGPIPE.
  sigset_t all;
  sigset_t previous;
  ::sigfillset(&all);
  ::pthread_sigmask(SIG_SETMASK, &all, &previous);
  const std::lock_guard lock(mutex_);
  try {
    thread_ = std::thread([this] { Run(); });
  } catch (const std::system_error&) {
  }
  ::pthread_sigmask(SIG_SETMASK, &previous, nullptr);
  return thread_.joinable();
}

void LineWriter::Write(std::string line) {
  const std::lock_guard lock(mutex_);
  if (!thread_.joinable()) {
    if (!WriteAll(line)) CountDropped();
    return;
  }
  const size_t line_bytes = line.size();
  waiting_.push_back(std::move(line));
  waiting_bytes_ += line_bytes;
  num_lines_.fetch_add(1);
  while (waiting_bytes_ > kMaxWaitingBytes) DropFront();
  changed_.notify_all();
}

bool LineWriter::Flush(std::chrono::nanoseconds timeout) {
  std::unique_lock lock(mutex_);
  const int64_t num_lines = num_lines_.load();
  return changed_.wait_for(lock, timeout, [&] { return num_settled_.load() >= num_lines; });
}

void LineWriter::FlushInSignalHandler(std::chrono::milliseconds timeout) const {
  const int64_t num_lines = num_lines_.load();
  const timespec millisecond{0, 1'000'000};
  for (int64_t i = 0; i < timeout.count() && num_settled_.load() < num_lines; ++i) {
    ::nanosleep(&millisecond, nullptr);
  }
}

void LineWriter::Run() {
  std::unique_lock lock(mutex_);
  while (true) {
    changed_.wait(lock, [this] { return closing_ || !waiting_.empty() || num_untold_ > 0; });
    if (waiting_.empty() && num_untold_ == 0) return;
    const int64_t num_lines = TakePiece();
    lock.unlock();
    const bool written = WriteAll(piece_);
    lock.lock();
    if (!written) num_dropped_.fetch_add(num_lines, std::memory_order_relaxed);
    num_settled_.fetch_add(num_lines);
    changed_.notify_all();
  }
}

int64_t LineWriter::TakePiece() {
  piece_.clear();
  int64_t num_lines = 0;
  try {
    if (num_untold_ > 0) piece_ = gap_(std::exchange(num_untold_, 0));
    while (!waiting_.empty() &&
           (piece_.empty() || piece_.size() + waiting_.front().size() <= kPieceBytes)) {
      piece_ += waiting_.front();
      ++num_lines;
      PopFront();
    }
  } catch (const std::bad_alloc&) {
    // There may be enough memory for the next line.
    if (num_lines == 0 && !waiting_.empty()) DropFront();
  }
  return num_lines;
}

void LineWriter::PopFront() {
  waiting_bytes_ -= waiting_.front().size();
  waiting_.pop_front();
}

void LineWriter::DropFront() {
  PopFront();
  ++num_untold_;
  CountDropped();
  num_settled_.fetch_add(1);
}

bool LineWriter::WriteAll(const std::string& text) const {
  size_t num_written = 0;
  while (num_written < text.size()) {
    const ssize_t count = ::write(fd_, text.data() + num_written, text.size() - num_written);
    if (count >= 0) {
      num_written += static_cast<size_t>(count);
    } else if (errno == EAGAIN) {
      // Someone else has made the descriptor non-blocking.
      pollfd writable{fd_, POLLOUT, 0};
      ::poll(&writable, 1, -1);
    } else if (errno != EINTR) {
      return false;
    }
  }
  return true;
}

}  // namespace swiglu::logging
