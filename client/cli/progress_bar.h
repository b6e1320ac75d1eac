// SPDX-License-Identifier: Apache-2.0
//
// The line on a terminal that shows a waiting user how far the work has come.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"

namespace swiglu::cli {

// How far some work has come.
struct Progress {
  std::string what;         // what the program does, such as "waiting for the server"
  double fraction = -1;     // from 0 to 1; below 0 if it is not known
  std::string detail = "";  // numbers, such as "3 of 7 parts"; empty: the seconds that have passed
};

// Decides what is written to the terminal, and when. It has no clock: its caller passes the time.
// Not thread-safe.
class ProgressLine {
 public:
  // Work that takes less time than this shows nothing.
  static constexpr absl::Duration kPatience = absl::Seconds(1);

  // The work begins at `start`. The terminal has `num_columns` columns.
  ProgressLine(absl::Time start, int num_columns) : start_(start), num_columns_(num_columns) {}

  // What shows `progress` at `now`, in place of what was shown before. Empty before kPatience has
  // passed, and if the line would be the same.
  std::string Draw(const Progress& progress, absl::Time now);

  // What removes the line. Empty if nothing was drawn.
  std::string Wipe() const;

 private:
  const absl::Time start_;
  const int num_columns_;
  std::string shown_;  // the line that the terminal has
};

// Shows the progress of some work on stderr while the object lives, if stderr is a terminal. A
// thread of its own draws the line ten times a second, after the first second. The destructor wipes
// the line. Thread-safe.
class ProgressBar {
 public:
  // Asked for the progress each time that the line is drawn. Called on the thread of the bar.
  using Source = std::function<Progress()>;

  // Work of which only `what` is known, until Show tells more.
  explicit ProgressBar(std::string what);
  explicit ProgressBar(Source source);
  ~ProgressBar();
  ProgressBar(const ProgressBar&) = delete;
  ProgressBar& operator=(const ProgressBar&) = delete;

  // Notes that `num_done` of `num_all` parts are done. A number below one noted already is ignored,
  // because the threads that finish parts may call in any order.
  void Show(int64_t num_done, int64_t num_all);

 private:
  void Run();
  // Waits for the end, but not longer than `time`. Whether it has come.
  bool IsOverWithin(absl::Duration time);
  Progress Known();

  const std::string what_;
  const Source source_;
  absl::Mutex mutex_;
  int64_t num_done_ ABSL_GUARDED_BY(mutex_) = 0;
  int64_t num_all_ ABSL_GUARDED_BY(mutex_) = 0;
  bool is_over_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;  // runs only if stderr is a terminal
};

// Wipes the line that a bar shows, if there is one. From now on, no bar shows any. For a process
// that ends at once.
void WipeProgressForGood();

// Returns what `call` returns. Shows until then that the program waits for the server.
template <typename Call>
auto WaitForServer(const Call& call) {
  const ProgressBar bar("waiting for the server");
  return call();
}

}  // namespace swiglu::cli
