// SPDX-License-Identifier: Apache-2.0
//
// The text of the times. See the header.
#include "server/service/server_timing.h"

#include <chrono>

#include "absl/strings/str_format.h"

namespace swiglu::server {
namespace {

std::string ThreeDecimals(std::chrono::nanoseconds time) {
  const auto us = std::chrono::duration_cast<std::chrono::microseconds>(time).count();
  return absl::StrFormat("%d.%03d", us / 1000, us % 1000);
}

}  // namespace

bool HasServerTiming(const InferReply& reply) {
  // A request that ended before its execution, or whose device failed, was computed for no time.
  return reply.status.ok() || reply.times.compute > std::chrono::nanoseconds::zero();
}

std::string ServerTiming(const PhaseTimes& times) {
  return absl::StrFormat("queue;dur=%s, compute;dur=%s", ThreeDecimals(times.queue),
                         ThreeDecimals(times.compute));
}

}  // namespace swiglu::server
