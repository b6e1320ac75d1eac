// SPDX-License-Identifier: Apache-2.0
//
// What the log says of inference requests: one line for each that was not served, few enough of
// them that a storm cannot flood the log. Beside what the caller was told, it names the request by
// the ids that the caller gave, cleaned, and the caller by its address. Of tensors, other metadata
// and credentials it knows nothing.
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

// `id` as the log shows it: printable ASCII without spaces, quotes and backslashes, all else as
// '_', and "..." for what is too long. So it can break neither a line nor a format, and forge no
// field.
std::string CleanRequestId(absl::string_view id);

struct RequestLogOptions {
  // Whether lines have the peer's address: off for those who may not keep it.
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
  // Quick where the level is not logged. Of a call that is no inference, pass its record here
  // alone.
  void RequestFinished(const RequestRecord& record) override;
  void RequestSent(const Model*, std::chrono::nanoseconds, std::chrono::nanoseconds) override {}
  void BatchFinished(const BatchRecord&) override {}
  void DeviceFailed(int, DeviceError) override {}

  // Says how many lines of each code were left out, where no later line has said it.
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
