// SPDX-License-Identifier: Apache-2.0
//
// What must not stay when the process is told to end: files and folders that are not finished.
#pragma once

#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/functional/function_ref.h"
#include "absl/synchronization/mutex.h"

namespace swiglu::files {

// Knows the names of what is being made. Who waits for the signals that end the process calls
// `RemoveAll` before it does. Thread-safe.
class UnfinishedFiles {
 public:
  // Calls `make`, which is to make `path` and to give 0, or an errno value and to make nothing.
  // From then on `path` is unfinished, with no moment between. Gives what `make` gave. Once
  // RemoveAll has begun it neither makes anything nor returns.
  int Make(const std::string& path, absl::FunctionRef<int()> make);

  // `path` is finished, or gone.
  void Forget(const std::string& path);

  // Removes everything that is unfinished, the last first, and folders only if they are empty. For
  // the end of the process: nothing can be made afterwards.
  void RemoveAll();

 private:
  absl::Mutex mu_;
  bool is_over_ ABSL_GUARDED_BY(mu_) = false;
  std::vector<std::string> paths_ ABSL_GUARDED_BY(mu_);
};

}  // namespace swiglu::files
