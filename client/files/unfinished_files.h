// SPDX-License-Identifier: Apache-2.0
//
// Files and folders that are not finished. They must not stay when the process is told to end.
#pragma once

#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/functional/function_ref.h"
#include "absl/synchronization/mutex.h"

namespace swiglu::files {

// Knows the names of the files and folders that are being made. The thread that waits for the
// signals that end the process calls `RemoveAll` before the end. Thread-safe.
class UnfinishedFiles {
 public:
  // Calls `make`, and returns what `make` returns. `make` must make `path` and return 0, or make
  // nothing and return an errno value. As soon as `path` exists, it counts as unfinished. Once
  // RemoveAll has begun, this function makes nothing and does not return.
  int Make(const std::string& path, absl::FunctionRef<int()> make);

  // Says that `path` is finished, or has been removed.
  void Forget(const std::string& path);

  // Removes everything that is unfinished, in reverse order, and folders only if they are empty.
  // For the end of the process: nothing can be made afterwards.
  void RemoveAll();

 private:
  absl::Mutex mu_;
  bool is_over_ ABSL_GUARDED_BY(mu_) = false;
  std::vector<std::string> paths_ ABSL_GUARDED_BY(mu_);
};

}  // namespace swiglu::files
