// SPDX-License-Identifier: Apache-2.0
//
// From limits to the library's settings.
#include "server/transport/connection_limits.h"

#include <grpc/impl/codegen/grpc_types.h>

#include <algorithm>
#include <limits>

namespace swiglu::server {
namespace {

// How early a ping may come that is sent on time.
constexpr absl::Duration kPingSlack = absl::Seconds(1);

// The most metadata that the library takes. Past that it breaks the whole connection, and the calls
// of others on it, so this is far beyond the limit that callers are held to.
constexpr int kMaxLibraryMetadataBytes = 1 << 20;

int ToMilliseconds(absl::Duration time) {
  return static_cast<int>(absl::ToInt64Milliseconds(time));
}

// The library's word for never is the largest number.
int ToMillisecondsOrNever(absl::Duration time) {
  return time == absl::ZeroDuration() ? std::numeric_limits<int>::max() : ToMilliseconds(time);
}

}  // namespace

void ApplyConnectionLimits(const ConnectionLimits& limits, grpc::ServerBuilder& builder) {
  builder.AddChannelArgument(GRPC_ARG_MAX_CONNECTION_AGE_MS, ToMillisecondsOrNever(limits.max_age));
  builder.AddChannelArgument(GRPC_ARG_MAX_CONNECTION_AGE_GRACE_MS,
                             ToMilliseconds(limits.max_age_grace));
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS,
                             ToMillisecondsOrNever(limits.keepalive_time));
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIMEOUT_MS,
                             ToMilliseconds(limits.keepalive_timeout));
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS,
                             ToMilliseconds(PingIntervalWithSlack(limits.min_ping_interval)));
  // Clients may ping, and are pinged, without calls too: it keeps connections through balancers.
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  builder.AddChannelArgument(GRPC_ARG_MAX_METADATA_SIZE, kMaxLibraryMetadataBytes);
}

absl::Duration PingIntervalWithSlack(absl::Duration interval) {
  return interval - std::min(kPingSlack, interval / 2);
}

}  // namespace swiglu::server
