// SPDX-License-Identifier: Apache-2.0
//
// Writes the log lines about inference requests: one for each request that was not served and, at
// level debug, one for each that was served. The rate of lines is limited, so that many failing
// requests cannot flood the log. A line has the error that the caller got, the ids that the caller
// gave (cleaned), the id of the caller's trace, and the caller's address. It never has tensors,
// other metadata or credentials.
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

// The metadata in which a caller can give a request a second id, beside the message's `id`.
inline constexpr char kRequestIdMetadata[] = "x-request-id";

// The most bytes of an id or of a peer that the log repeats.
inline constexpr size_t kMaxLoggedIdBytes = 64;

// `id` as the log shows it: printable ASCII without spaces, quotes and backslashes. Every other
// character becomes '_'. An id that is too long is cut and ends in "...". So an id cannot break a
// line or a format, and cannot look like a field.
std::string CleanRequestId(absl::string_view id);

struct RequestLogOptions {
  // Whether lines have the peer's address. Some operators are not allowed to keep addresses.
  bool with_peers = true;
};

// Thread-safe. Lock-free, except while it writes a line.
class RequestLog final : public Observer {
 public:
  explicit RequestLog(RequestLogOptions options = {}) : options_(options) {}

  // The least time between two lines about the same code.
  static constexpr std::chrono::milliseconds kInterval{100};

  // Writes the line of a request, or counts the line as left out. Its level is debug for a served
  // request, info if the caller went away, error for a fault of this server, else warning. Returns
  // at once if this level is not logged. The router also passes records of refused calls that are
  // not inferences; no other observer gets these.
  void RequestFinished(const RequestRecord& record) override;
  void RequestSent(const Model*, std::chrono::nanoseconds, std::chrono::nanoseconds) override {}
  void BatchFinished(const BatchRecord&) override {}
  void DeviceFailed(int, DeviceError) override {}

  // Logs how many lines of each code were left out, unless a later line has already said so.
  void Flush();

 private:
  // Every status code is below this number.
  static constexpr int kNumCodes = 17;

  static logging::Level LevelOf(absl::StatusCode code);
  static int IndexOf(absl::StatusCode code);

  const RequestLogOptions options_;
  std::array<logging::RateLimiter, kNumCodes> limiters_;  // by code
};

}  // namespace swiglu::server
