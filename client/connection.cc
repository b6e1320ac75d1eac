// SPDX-License-Identifier: Apache-2.0
//
// What connections have in common, and MakeConnection, which checks options.
#include "swiglu/connection.h"

#include <algorithm>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "client/fork_guard.h"
#include "client/server_address.h"
#include "client/server_connection.h"

namespace swiglu::client {
namespace {

constexpr int kMaxConnections = 64;
constexpr int kMaxAttempts = 100;
constexpr int64_t kMinMessageBytes = 4096;
constexpr int64_t kMaxMessageBytes = (int64_t{1} << 31) - 1;
constexpr int64_t kMaxCoalesceBytes = int64_t{128} << 10;

absl::Status CheckOptions(const Options& options) {
  if (options.timeout < absl::ZeroDuration()) {
    return absl::InvalidArgumentError(absl::StrCat(
        "option timeout is ", absl::FormatDuration(options.timeout), "; it takes 0 or more"));
  }
  if (options.hedge_delay < absl::ZeroDuration()) {
    return absl::InvalidArgumentError(absl::StrCat("option hedge_delay is ",
                                                   absl::FormatDuration(options.hedge_delay),
                                                   "; it takes 0 or more"));
  }
  if (!(options.retry_budget >= 0 && options.retry_budget <= 1)) {
    return absl::InvalidArgumentError(
        absl::StrCat("option retry_budget is ", options.retry_budget, "; it takes 0 to 1"));
  }
  struct Range {
    const char* name;
    int64_t value, low, high;
  };
  for (const auto& [name, value, low, high] :
       {Range{"num_connections", options.num_connections, 0, kMaxConnections},
        Range{"max_message_bytes", options.max_message_bytes, kMinMessageBytes, kMaxMessageBytes},
        Range{"chunk_bytes", options.chunk_bytes, kMinMessageBytes, kMaxMessageBytes},
        Range{"max_attempts", options.max_attempts, 1, kMaxAttempts},
        Range{"coalesce_bytes", options.coalesce_bytes, 0, kMaxCoalesceBytes}}) {
    if (low <= value && value <= high) continue;
    return absl::InvalidArgumentError(
        absl::StrCat("option ", name, " is ", value, "; it takes ", low, " to ", high));
  }
  return absl::OkStatus();
}

int DefaultConnections() {
  return std::clamp(static_cast<int>(std::thread::hardware_concurrency()), 1, 8);
}

}  // namespace

CallResult Connection::Infer(const Inference& inference, const CallContext& context) {
  CallResult result;
  absl::Notification has_ended;
  StartInfer(inference, context, [&](CallResult&& its_result) {
    result = std::move(its_result);
    has_ended.Notify();
  });
  has_ended.WaitForNotification();
  return result;
}

absl::StatusOr<std::string> Connection::Control(absl::string_view rpc, const std::string&,
                                                const TimeLimit&) {
  return absl::UnimplementedError(absl::StrCat("this connection has no ", rpc));
}

absl::StatusOr<std::shared_ptr<Connection>> MakeConnection(absl::string_view address,
                                                           const Options& options) {
  const absl::StatusOr<std::vector<std::string>> addresses = SplitAddresses(address);
  if (!addresses.ok()) return addresses.status();
  absl::Status status = CheckOptions(options);
  if (status.ok()) status = ForkGuard::CheckNew();
  if (!status.ok()) return status;
  Options resolved = options;
  if (options.num_connections == 0) resolved.num_connections = DefaultConnections();
  resolved.chunk_bytes = std::min(options.chunk_bytes, options.max_message_bytes);
  try {
    return std::make_shared<ServerConnection>(*addresses, resolved);
  } catch (const std::system_error& error) {
    return absl::ResourceExhaustedError(
        absl::StrCat("cannot start a thread of the client: ", error.what()));
  }
}

}  // namespace swiglu::client
