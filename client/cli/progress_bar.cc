// SPDX-License-Identifier: Apache-2.0
//
// One line, drawn over and over.
#include "client/cli/progress_bar.h"

#include <stdio.h>
#include <unistd.h>

#include <string>

namespace swiglu::cli {
namespace {

constexpr int64_t kWidth = 40;

}  // namespace

ProgressBar::ProgressBar() : is_terminal_(isatty(STDERR_FILENO) == 1) {}

ProgressBar::~ProgressBar() {
  absl::MutexLock lock(&mu_);
  if (shown_ > 0) fputs("\r\033[K", stderr);
}

void ProgressBar::Show(int64_t num_done, int64_t num_chunks) {
  if (!is_terminal_) return;
  absl::MutexLock lock(&mu_);
  if (num_done <= shown_) return;
  shown_ = num_done;
  const auto filled = static_cast<size_t>(kWidth * num_done / num_chunks);
  const std::string bar = std::string(filled, '#') + std::string(kWidth - filled, '.');
  fprintf(stderr, "\r[%s] %lld/%lld", bar.c_str(), static_cast<long long>(num_done),
          static_cast<long long>(num_chunks));
}

}  // namespace swiglu::cli
