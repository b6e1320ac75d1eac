// SPDX-License-Identifier: Apache-2.0
//
// One line: what is done, a bar of 20 characters, numbers.
#include "client/cli/progress_bar.h"

#include <stdio.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"

namespace swiglu::cli {
namespace {

constexpr absl::Duration kBetweenDrawings = absl::Milliseconds(100);

// The columns of a terminal that does not tell its own.
constexpr int kUsualColumns = 80;

// What returns to the first column and clears the line.
constexpr char kClear[] = "\r\033[K";

int NumColumns() {
  winsize size = {};
  const bool is_told = ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0;
  return is_told ? size.ws_col : kUsualColumns;
}

std::string BarOf(double fraction) {
  constexpr size_t kWidth = 20;
  const auto filled = static_cast<size_t>(double{kWidth} * std::clamp(fraction, 0.0, 1.0));
  return absl::StrCat(" [", std::string(filled, '#'), std::string(kWidth - filled, '.'), "] ");
}

// The line on the terminal, which belongs to the process.
absl::Mutex terminal_mutex(absl::kConstInit);
bool has_line ABSL_GUARDED_BY(terminal_mutex) = false;
bool is_wiped_for_good ABSL_GUARDED_BY(terminal_mutex) = false;

void WriteToTerminal(const std::string& text) {
  absl::MutexLock lock(&terminal_mutex);
  if (text.empty() || is_wiped_for_good) return;
  fputs(text.c_str(), stderr);
  has_line = text != kClear;
}

}  // namespace

void WipeProgressForGood() {
  absl::MutexLock lock(&terminal_mutex);
  is_wiped_for_good = true;
  if (has_line) fputs(kClear, stderr);
}

std::string ProgressLine::Draw(const Progress& progress, absl::Time now) {
  if (now - start_ < kPatience) return "";
  std::string line =
      absl::StrCat(progress.what, progress.fraction < 0 ? ", " : BarOf(progress.fraction),
                   progress.detail.empty() ? absl::StrCat(absl::ToInt64Seconds(now - start_), " s")
                                           : progress.detail);
  // A line that fills the terminal's last column may go on in the next row, where Wipe leaves it.
  line.resize(std::min(line.size(), static_cast<size_t>(std::max(num_columns_ - 1, 0))));
  if (line == shown_) return "";
  shown_ = line;
  return kClear + line;
}

std::string ProgressLine::Wipe() const { return shown_.empty() ? "" : kClear; }

ProgressBar::ProgressBar(std::string what) : what_(std::move(what)) {
  if (isatty(STDERR_FILENO) == 1) thread_ = std::thread([this] { Run(); });
}

ProgressBar::ProgressBar(Source source) : source_(std::move(source)) {
  if (isatty(STDERR_FILENO) == 1) thread_ = std::thread([this] { Run(); });
}

ProgressBar::~ProgressBar() {
  {
    absl::MutexLock lock(&mutex_);
    is_over_ = true;
  }
  if (thread_.joinable()) thread_.join();
}

void ProgressBar::Show(int64_t num_done, int64_t num_all) {
  absl::MutexLock lock(&mutex_);
  if (num_done <= num_done_) return;
  num_done_ = num_done;
  num_all_ = num_all;
}

Progress ProgressBar::Known() {
  if (source_) return source_();
  absl::MutexLock lock(&mutex_);
  if (num_all_ == 0) return {what_, -1, ""};
  return {what_, static_cast<double>(num_done_) / static_cast<double>(num_all_),
          absl::StrCat(num_done_, " of ", num_all_, " parts")};
}

bool ProgressBar::IsOverWithin(absl::Duration time) {
  absl::MutexLock lock(&mutex_);
  return mutex_.AwaitWithTimeout(absl::Condition(&is_over_), time);
}

void ProgressBar::Run() {
  ProgressLine line(absl::Now(), NumColumns());
  while (!IsOverWithin(kBetweenDrawings)) WriteToTerminal(line.Draw(Known(), absl::Now()));
  WriteToTerminal(line.Wipe());
}

}  // namespace swiglu::cli
