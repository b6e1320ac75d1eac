// SPDX-License-Identifier: Apache-2.0
//
// Some processes of this host, of which one wants to know when they have ended.
#pragma once

#include <sys/types.h>

#include <vector>

#include "absl/types/span.h"
#include "server/base/descriptor.h"

namespace swiglu::server {

// Thread-safe. It is not deceived by process ids that are used again.
class Processes {
 public:
  // The processes with these ids now. An id of 0 stands for a process that this one cannot see.
  explicit Processes(absl::Span<const pid_t> pids);

  // Whether all of them have ended. False if one of them cannot be seen, or if there are none.
  bool HaveEnded() const;
  // Whether one of them has ended, or had when this was made.
  bool HasOneEnded() const;

 private:
  bool are_known_;
  bool has_one_ended_ = false;
  std::vector<Descriptor> running_;  // that ran when this was made
};

}  // namespace swiglu::server
