// SPDX-License-Identifier: Apache-2.0
//
// What a connection may do, and how long it may live: gRPC keeps these limits, by settings.
#pragma once

#include "absl/time/time.h"
#include "grpcpp/server_builder.h"

namespace swiglu::server {

struct ConnectionLimits {
  // A connection is told to end when it is so old, give or take a tenth, so that clients connect
  // anew and balancers can spread them; zero: never.
  absl::Duration max_age = absl::ZeroDuration();
  // After that its calls may go on for so long, then they are cut off. > 0.
  absl::Duration max_age_grace = absl::Minutes(5);
  // A connection that brings nothing for so long is asked whether its peer is there; zero: never.
  absl::Duration keepalive_time = absl::Seconds(30);
  // It is closed when no answer comes for so long, and when the peer takes no byte for so long.
  // > 0.
  absl::Duration keepalive_timeout = absl::Seconds(30);
  // A client may ask so often whether the server is there. One that asks at its very interval may
  // be early by as much as its timer and the network are. > 0.
  absl::Duration min_ping_interval = absl::Seconds(10);
};

// Has `builder` keep them.
void ApplyConnectionLimits(const ConnectionLimits& limits, grpc::ServerBuilder& builder);

// How far apart pings have to be so that none counts as too early, where `interval` is allowed.
absl::Duration PingIntervalWithSlack(absl::Duration interval);

}  // namespace swiglu::server
