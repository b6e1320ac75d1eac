// SPDX-License-Identifier: Apache-2.0
//
// Keeps the unfinished paths in a list under a lock.
#include "client/files/unfinished_files.h"

#include <stdio.h>

#include <algorithm>

namespace swiglu::files {

int UnfinishedFiles::Make(const std::string& path, absl::FunctionRef<int()> make) {
  absl::MutexLock lock(&mutex_);
  mutex_.Await(absl::Condition(
      +[](bool* is_over) { return !*is_over; }, &is_over_));
  const int error = make();
  if (error == 0) paths_.push_back(path);
  return error;
}

void UnfinishedFiles::Forget(const std::string& path) {
  absl::MutexLock lock(&mutex_);
  paths_.erase(std::remove(paths_.begin(), paths_.end(), path), paths_.end());
}

void UnfinishedFiles::RemoveAll() {
  absl::MutexLock lock(&mutex_);
  is_over_ = true;
  for (; !paths_.empty(); paths_.pop_back()) remove(paths_.back().c_str());
}

}  // namespace swiglu::files
