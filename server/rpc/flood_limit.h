// SPDX-License-Identifier: Apache-2.0
//
// How many bytes a connection may send that belong to no message: frames that carry nothing (pings,
// settings, windows), and headers that never end. They cost the peer next to nothing and the server
// much. Pure: counts and times come in.
#pragma once

#include <chrono>
#include <cstdint>

namespace swiglu::server {

// What is known of a connection at some moment. The counts only grow.
struct ConnectionTraffic {
  // What gRPC has taken from it since it began.
  uint64_t taken_bytes = 0;
  // Its calls, and their messages that came or will not come any more.
  uint64_t num_steps = 0;
  // Whether a call waits for a message: what comes belongs to it.
  bool is_awaiting = false;
};

// Of one connection: counts its bytes since its last call or message. Not thread-safe.
class FloodLimit {
 public:
  using Time = std::chrono::steady_clock::time_point;

  // What comes belongs to no message for sure once it is more than the windows of HTTP/2 hold for
  // calls that the server has not got round to...
  static constexpr uint64_t kAtOnceBytes = 64 << 20;
  // ... or more than this, when the server has had so long to get round to them.
  static constexpr uint64_t kLastingBytes = 4 << 20;
  static constexpr std::chrono::milliseconds kPatience{2000};
  // Beside that, so many may come in a second: pings and windows of answers that take long.
  static constexpr uint64_t kBytesPerSecond = 2 << 20;

  // `first`: what is known of the connection now.
  FloodLimit(const ConnectionTraffic& first, Time now)
      : base_bytes_(first.taken_bytes), num_steps_(first.num_steps), since_(now) {}

  // Takes what is known at `now`; true if the connection is past its limit.
  bool IsExceeded(const ConnectionTraffic& traffic, Time now) {
    if (traffic.is_awaiting || traffic.num_steps != num_steps_) {
      *this = FloodLimit(traffic, now);
      return false;
    }
    const Time::duration passed = now - since_;
    const auto allowed =
        static_cast<uint64_t>(kBytesPerSecond * std::chrono::duration<double>(passed).count());
    const uint64_t bytes = traffic.taken_bytes - base_bytes_;
    return bytes > allowed + (passed < kPatience ? kAtOnceBytes : kLastingBytes);
  }

 private:
  // At the last call or message, and when that was seen.
  uint64_t base_bytes_;
  uint64_t num_steps_;
  Time since_;
};

}  // namespace swiglu::server
