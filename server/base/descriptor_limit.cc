// SPDX-License-Identifier: Apache-2.0
//
// Reads and raises the limit with getrlimit and setrlimit.
#include "server/base/descriptor_limit.h"

#include <sys/resource.h>

#include <algorithm>
#include <limits>

namespace swiglu::server {
namespace {

// Descriptors that the process needs beside its gRPC connections: event descriptors, the metrics
// page's 64 connections, the devices and libraries of a GPU driver.
constexpr int64_t kOwnDescriptors = 192;

int64_t ToCount(rlim_t limit) {
  constexpr auto kMost = std::numeric_limits<int64_t>::max();
  return limit == RLIM_INFINITY || limit > static_cast<rlim_t>(kMost) ? kMost
                                                                      : static_cast<int64_t>(limit);
}

}  // namespace

DescriptorLimit RaiseDescriptorLimit() {
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) return {};
  const int64_t before = ToCount(limit.rlim_cur);
  rlimit raised = limit;
  raised.rlim_cur = limit.rlim_max;
  if (::setrlimit(RLIMIT_NOFILE, &raised) == 0) limit = raised;
  return {before, ToCount(limit.rlim_cur)};
}

int64_t ConnectionLimit(int64_t wanted, int64_t descriptors) {
  // With a small limit, reserves only half of it, so that the other half is left for connections.
  const int64_t own = std::min(kOwnDescriptors, descriptors / 2);
  return std::clamp<int64_t>(wanted, 1, std::max<int64_t>(descriptors - own, 1));
}

}  // namespace swiglu::server
