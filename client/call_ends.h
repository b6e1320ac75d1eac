// SPDX-License-Identifier: Apache-2.0
//
// How calls end early, in the words that every connection of the library has for it, and the sum of
// what their messages did.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "swiglu/connection.h"

namespace swiglu::client {

inline bool IsCancelled(const CallContext& context) {
  return context.cancellation != nullptr && context.cancellation->is_cancelled();
}

inline absl::Status CancelledStatus() { return absl::CancelledError("the call was cancelled"); }

// The error of a call whose deadline has passed. `servers` are those that could have answered.
inline absl::Status LateStatus(const TimeLimit& limit, absl::string_view servers) {
  const std::string timeout = absl::FormatDuration(limit.timeout);
  return absl::DeadlineExceededError(
      limit.timeout > absl::ZeroDuration()
          ? absl::StrCat("no answer from ", servers, " within ", timeout)
          : absl::StrCat("no time for a call to ", servers, ": its timeout is ", timeout));
}

// Adds the messages of `one` to those of `all`.
inline void AddMessages(const CallStatistics& one, CallStatistics* all) {
  all->num_messages += one.num_messages;
  all->bytes_sent += one.bytes_sent;
  all->bytes_received += one.bytes_received;
}

}  // namespace swiglu::client
