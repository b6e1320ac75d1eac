// SPDX-License-Identifier: Apache-2.0
//
// How many bytes a connection may send that belong to no message: frames that carry nothing (pings,
// settings, windows), and headers that never end. They cost the peer next to nothing and the server
// much. Pure: counts and times come in.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>

namespace swiglu::server {

// What is known of a connection at some moment. The counts only grow.
struct ConnectionTraffic {
  // Since the connection began.
  uint64_t received_bytes = 0;
  // Messages that its calls began to wait for, that came, and that will not come any more.
  uint64_t num_steps = 0;
  // What messages may have had at most that will not come any more. Their callers have sent a part
  // of them before they hear of it.
  int64_t lost_bytes = 0;
  // Whether a call waits for a message: what comes belongs to it.
  bool is_awaiting = false;
};

// Of one connection. Not thread-safe.
class FloodLimit {
 public:
  using Time = std::chrono::steady_clock::time_point;

  // So many bytes may come at once, and so many a second. A call makes up for all of those before.
  static constexpr double kAtOnce = 4 << 20;
  static constexpr double kPerSecond = 2 << 20;
  // The most that comes of a message after its call was refused: HTTP/2's windows bound it.
  static constexpr int64_t kMostLostBytes = 64 << 20;

  // `first`: what is known of the connection now.
  FloodLimit(const ConnectionTraffic& first, Time now) : last_(first), looked_at_(now) {}

  // Takes what is known at `now`; true if the connection is past its limit.
  bool IsExceeded(const ConnectionTraffic& traffic, Time now) {
    const std::chrono::duration<double> passed = now - looked_at_;
    const int64_t lost_bytes = std::min(traffic.lost_bytes - last_.lost_bytes, kMostLostBytes);
    left_ = std::max(left_, std::min(left_ + kPerSecond * passed.count(), kAtOnce));
    left_ = std::min(left_ + static_cast<double>(lost_bytes), kAtOnce + kMostLostBytes);
    if (traffic.is_awaiting || traffic.num_steps != last_.num_steps) {
      left_ = std::max(left_, kAtOnce);
    } else {
      left_ -= static_cast<double>(traffic.received_bytes - last_.received_bytes);
    }
    last_ = traffic;
    looked_at_ = now;
    return left_ < 0;
  }

 private:
  double left_ = kAtOnce;  // bytes that may still come
  ConnectionTraffic last_;
  Time looked_at_;
};

}  // namespace swiglu::server
