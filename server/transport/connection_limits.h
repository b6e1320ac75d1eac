// SPDX-License-Identifier: Apache-2.0
//
// What a connection may do, and how long it may live. gRPC enforces these limits; this sets them.
#pragma once

#include "absl/time/time.h"
#include "grpcpp/server_builder.h"

namespace swiglu::server {

struct ConnectionLimits {
  // The age at which a connection is told to end, give or take a tenth, so that peers connect anew
  // and balancers can spread them; zero: never.
  absl::Duration max_age = absl::ZeroDuration();
  // How long its calls may go on after that, until they are cut off. > 0.
  absl::Duration max_age_grace = absl::Minutes(5);
  // If no byte has come for this long, the server asks whether the peer is there; zero: never.
  absl::Duration keepalive_time = absl::Seconds(30);
  // If the peer does not answer that question, or takes no byte, for this long, the connection is
  // closed. > 0.
  absl::Duration keepalive_timeout = absl::Seconds(30);
  // The shortest interval between a peer's pings. A peer that pings at exactly this interval may
  // ping a little early, because timers and networks are not exact. > 0.
  absl::Duration min_ping_interval = absl::Seconds(10);
};

// Sets these limits on `builder`.
void ApplyConnectionLimits(const ConnectionLimits& limits, grpc::ServerBuilder& builder);

// The interval to set in gRPC so that peers may ping at `interval`. It is somewhat shorter, so that
// no ping of such a peer counts as too early.
absl::Duration PingIntervalWithSlack(absl::Duration interval);

}  // namespace swiglu::server
