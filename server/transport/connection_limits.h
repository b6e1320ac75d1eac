// SPDX-License-Identifier: Apache-2.0
//
// What a connection may do, and how long it may live: gRPC keeps these limits, by settings.
#pragma once

#include "absl/time/time.h"
#include "grpcpp/server_builder.h"

namespace swiglu::server {

struct ConnectionLimits {
  // The age at which a connection is told to end, give or take a tenth, so that clients connect
  // anew and balancers can spread them; zero: never.
  absl::Duration max_age = absl::ZeroDuration();
  // How long its calls may go on after that, until they are cut off. > 0.
  absl::Duration max_age_grace = absl::Minutes(5);
  // After how long without a byte the server asks whether the peer is there; zero: never.
  absl::Duration keepalive_time = absl::Seconds(30);
  // The connection is closed if for this long no answer comes, or the peer takes no byte. > 0.
  absl::Duration keepalive_timeout = absl::Seconds(30);
  // How far apart a client's pings have to be. One that pings at exactly this interval may come a
  // little early, because timers and networks are not exact. > 0.
  absl::Duration min_ping_interval = absl::Seconds(10);
};

// Has `builder` keep them.
void ApplyConnectionLimits(const ConnectionLimits& limits, grpc::ServerBuilder& builder);

// The interval that gRPC is given where `interval` is allowed: somewhat shorter, so that no ping of
// such a client counts as too early.
absl::Duration PingIntervalWithSlack(absl::Duration interval);

}  // namespace swiglu::server
