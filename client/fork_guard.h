// SPDX-License-Identifier: Apache-2.0
//
// Notices that the process was forked. gRPC's threads do not exist in the child, so a call there
// would hang.
#pragma once

#include "absl/status/status.h"

namespace swiglu::client {

// Remembers the process that it was made in. Thread-safe.
class ForkGuard {
 public:
  // Call it when the first thread of gRPC may start.
  ForkGuard();

  // Whether this process was forked from the one that made the guard.
  bool IsInChild() const;

  // FAILED_PRECONDITION in such a child.
  absl::Status Check() const;

  // How many forks lie between this process and the first one that called this or made a guard.
  static int NumForks();

  // FAILED_PRECONDITION if an ancestor of this process made a guard before it forked.
  static absl::Status CheckNew();

 private:
  const int generation_;
};

}  // namespace swiglu::client
