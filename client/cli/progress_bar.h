// SPDX-License-Identifier: Apache-2.0
//
// A line on stderr that shows how far a split operation has come. Silent where stderr is no
// terminal.
#pragma once

#include <cstdint>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"

namespace swiglu::cli {

// Thread-safe. The line is wiped on destruction.
class ProgressBar {
 public:
  ProgressBar();
  ~ProgressBar();
  ProgressBar(const ProgressBar&) = delete;
  ProgressBar& operator=(const ProgressBar&) = delete;

  // Shows that `num_done` of `num_chunks` are done; a number below one already shown is ignored.
  void Show(int64_t num_done, int64_t num_chunks);

 private:
  const bool is_terminal_;
  absl::Mutex mu_;
  int64_t shown_ ABSL_GUARDED_BY(mu_) = 0;
};

}  // namespace swiglu::cli
