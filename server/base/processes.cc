// SPDX-License-Identifier: Apache-2.0
//
// pidfd_open(2). See the header.
#include "server/base/processes.h"

#include <poll.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

namespace swiglu::server {
namespace {

bool HasEnded(const Descriptor& process) {
  pollfd ended = {process.get(), POLLIN, 0};
  return ::poll(&ended, 1, 0) == 1;
}

}  // namespace

Processes::Processes(absl::Span<const pid_t> pids) : are_known_(!pids.empty()) {
  for (const pid_t pid : pids) {
    Descriptor process(pid == 0 ? -1 : static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)));
    if (process.get() >= 0) {
      running_.push_back(std::move(process));
    } else if (pid != 0 && errno == ESRCH) {
      has_one_ended_ = true;
    } else {
      are_known_ = false;
    }
  }
}

bool Processes::HaveEnded() const {
  return are_known_ && std::all_of(running_.begin(), running_.end(), HasEnded);
}

bool Processes::HasOneEnded() const {
  return has_one_ended_ || std::any_of(running_.begin(), running_.end(), HasEnded);
}

}  // namespace swiglu::server
