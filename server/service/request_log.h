// SPDX-License-Identifier: Apache-2.0
//
// The log lines about inference requests. Each request that was not served has one line. The number
// of lines is limited, so that many failing requests cannot flood the log. A line has the error
// that the caller got, the ids that the caller gave (cleaned), and the caller's address. This class
// does not know of tensors, other metadata or credentials.
#pragma once

#include <array>
#include <chrono>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "server/core/model.h"
#include "server/core/observer.h"
#include "server/log/log.h"

namespace swiglu::server {

// The caller's metadata that names a request, beside the message's own `id`.
inline constexpr char kRequestIdMetadata[] = "x-request-id";

// The longest part of an id or of a peer that the log repeats, in bytes.
inline constexpr size_t kMaxLoggedIdBytes = 64;

// `id` as the log shows it: printable ASCII without spaces, quotes and backslashes. Every other
// character becomes '_'. An id that is too long is cut and ends in "...". So an id cannot break a
// line or a format, and cannot look like a field.
std::string CleanRequestId(absl::string_view id);

struct RequestLogOptions {
  // Whether lines have the peer's address. Some operators may not keep addresses.
  bool with_peers = true;
};

// Thread-safe, lock-free but for the lines that are written.
class RequestLog final : public Observer {
 public:
  explicit RequestLog(RequestLogOptions options = {}) : options_(options) {}

  // The least time between two lines about the same code.
  static constexpr std::chrono::milliseconds kInterval{100};

  // Writes the line of a request, or counts it as left out. Served requests have lines at the level
  // debug, callers that went away at info, faults of this server at error, all others at warning.
  // Returns at once if the level is not logged. Also takes records of calls that are no
  // inferences, which no other observer gets.
  void RequestFinished(const RequestRecord& record) override;
  void RequestSent(const Model*, std::chrono::nanoseconds, std::chrono::nanoseconds) override {}
  void BatchFinished(const BatchRecord&) override {}
  void DeviceFailed(int, DeviceError) override {}

  // Logs how many lines of each code were left out, unless a later line has already said so.
  void Flush();

 private:
  // Codes are small numbers.
  static constexpr int kNumCodes = 17;

  static logging::Level LevelOf(absl::StatusCode code);
  static int IndexOf(absl::StatusCode code);

  const RequestLogOptions options_;
  std::array<logging::RateLimiter, kNumCodes> limiters_;  // by code
};

}  // namespace swiglu::server
