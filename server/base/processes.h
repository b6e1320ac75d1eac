// SPDX-License-Identifier: Apache-2.0
//
// Finds out whether certain processes of this host have ended.
#pragma once

#include <sys/types.h>

#include <vector>

#include "absl/types/span.h"
#include "server/base/descriptor.h"

namespace swiglu::server {

// Thread-safe. After a process has ended, the system may give its id to a new process. The answers
// stay right even then.
class Processes {
 public:
  // The processes with these ids now. An id of 0 stands for a process that this process cannot see.
  explicit Processes(absl::Span<const pid_t> pids);

  // Whether all of them have ended. False if this process cannot see one of them, or if there are
  // none.
  bool HaveEnded() const;
  // Whether at least one of them has ended, or had ended before this object was made.
  bool HasOneEnded() const;

 private:
  bool are_known_;
  bool has_one_ended_ = false;
  std::vector<Descriptor> running_;  // those that ran when this object was made
};

}  // namespace swiglu::server
