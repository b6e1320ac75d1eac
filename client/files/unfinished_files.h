// SPDX-License-Identifier: Apache-2.0
//
// Files and folders that are not finished. They must be removed when a signal ends the process.
#pragma once

#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/functional/function_ref.h"
#include "absl/synchronization/mutex.h"

namespace swiglu::files {

// Knows the names of the files and folders that are being made. On a signal that ends the process,
// the thread that waits for signals calls `RemoveAll` before the end. Thread-safe.
class UnfinishedFiles {
 public:
  // Calls `make`, and returns what `make` returns. `make` must make `path` and return 0, or make
  // nothing and return an errno value. If `make` returns 0, `path` counts as unfinished from then
  // on. Once RemoveAll has begun, Make blocks for ever and makes nothing.
  int Make(const std::string& path, absl::FunctionRef<int()> make);

  // Stops counting `path` as unfinished. Call it when `path` is finished or has been removed.
  void Forget(const std::string& path);

  // Removes all unfinished files and folders, the last one made first. Folders that are not empty
  // stay. Call it at the end of the process: nothing can be made afterwards.
  void RemoveAll();

 private:
  absl::Mutex mutex_;
  bool is_over_ ABSL_GUARDED_BY(mutex_) = false;
  std::vector<std::string> paths_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace swiglu::files
