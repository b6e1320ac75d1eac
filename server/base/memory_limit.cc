// SPDX-License-Identifier: Apache-2.0
//
// cgroups(7). A container may show the host's path of the group in /proc/self/cgroup while its own
// /sys/fs/cgroup begins at that group, so every prefix of the path that exists is asked, down to
// the root.
#include "server/base/memory_limit.h"

#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <limits>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"

namespace swiglu::server {
namespace {

constexpr int64_t kNoLimit = std::numeric_limits<int64_t>::max();

// The number in `file`; kNoLimit where there is none ("max", no such file).
int64_t ReadLimit(const std::string& file) {
  std::string text;
  std::ifstream(file) >> text;
  int64_t limit = 0;
  return absl::SimpleAtoi(text, &limit) && limit > 0 ? limit : kNoLimit;
}

// The smallest limit from the group at `path` up to the root of the hierarchy mounted at `mount`.
int64_t GroupLimit(const std::string& mount, std::string path, const char* file) {
  int64_t limit = ReadLimit(mount + "/" + file);
  while (path.size() > 1) {
    limit = std::min(limit, ReadLimit(mount + path + "/" + file));
    path.resize(path.rfind('/') == std::string::npos ? 0 : path.rfind('/'));
  }
  return limit;
}

int64_t ControlGroupLimit(const std::string& root) {
  const std::string mount = root + "/sys/fs/cgroup";
  int64_t limit = kNoLimit;
  std::ifstream groups(root + "/proc/self/cgroup");
  // Each line is `ID:CONTROLLERS:PATH`; version 2 has no controllers there.
  for (std::string line; std::getline(groups, line);) {
    const std::vector<std::string> fields = absl::StrSplit(line, absl::MaxSplits(':', 2));
    if (fields.size() != 3) continue;
    if (fields[1].empty()) {
      limit = std::min(limit, GroupLimit(mount, fields[2], "memory.max"));
      limit = std::min(limit, GroupLimit(mount + "/unified", fields[2], "memory.max"));
    }
    for (absl::string_view controller : absl::StrSplit(fields[1], ',')) {
      if (controller != "memory") continue;
      limit = std::min(limit, GroupLimit(mount + "/memory", fields[2], "memory.limit_in_bytes"));
    }
  }
  return limit;
}

int64_t MachineMemoryBytes() {
  return static_cast<int64_t>(sysconf(_SC_PHYS_PAGES)) * sysconf(_SC_PAGESIZE);
}

// The limits of setrlimit(2).
int64_t ProcessLimit() {
  int64_t limit = kNoLimit;
  for (const auto resource : {RLIMIT_AS, RLIMIT_DATA}) {
    rlimit found{};
    if (::getrlimit(resource, &found) != 0 || found.rlim_cur == RLIM_INFINITY) continue;
    if (found.rlim_cur < static_cast<rlim_t>(limit)) limit = static_cast<int64_t>(found.rlim_cur);
  }
  return limit;
}

}  // namespace

int64_t MemoryLimitBytes(const std::string& root) {
  return std::min({MachineMemoryBytes(), ControlGroupLimit(root), ProcessLimit()});
}

}  // namespace swiglu::server
