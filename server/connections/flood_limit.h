// SPDX-License-Identifier: Apache-2.0
//
// Decides whether a connection floods the server. A flood goes on sending bytes that belong to no
// message: frames that carry nothing (pings, settings, windows) or headers that never end. They
// cost the peer next to nothing and the server much. Pure: counts and times come in.
#pragma once

#include <chrono>
#include <cstdint>

namespace swiglu::server {

// What is known of a connection at some moment. The counts only grow.
struct ConnectionTraffic {
  // How many bytes gRPC has read from it since it began.
  uint64_t taken_bytes = 0;
  // The number of its calls, plus the messages that have arrived or were given up.
  uint64_t num_steps = 0;
  // Whether a call waits for a message, or a stream of messages is open. The server may not be
  // reading the stream, if it is full. Bytes that come then belong to these messages.
  bool is_awaiting = false;
};

// Of one connection. Not thread-safe.
class FloodLimit {
 public:
  using Time = std::chrono::steady_clock::time_point;

  // A flood brings more than kBytesPerSlice in a time of kSlice, kNumSlices times in a row, without
  // any call. Much more than that may come at once without being a flood. Messages of calls that a
  // busy server has not got round to, or has refused, fill the windows of HTTP/2. gRPC makes these
  // windows as large as 150 MB on a fast wire.
  static constexpr int64_t kBytesPerSlice = 2 << 20;
  static constexpr std::chrono::milliseconds kSlice{500};
  static constexpr int kNumSlices = 4;

  // `first`: what is known of the connection now.
  FloodLimit(const ConnectionTraffic& first, Time now) : slice_begin_(first), slice_begun_(now) {}

  // Call this with the traffic at `now`. Returns true if the connection floods the server.
  bool IsExceeded(const ConnectionTraffic& traffic, Time now) {
    if (traffic.is_awaiting || traffic.num_steps != slice_begin_.num_steps) {
      *this = FloodLimit(traffic, now);
      return false;
    }
    const std::chrono::duration<double> passed = now - slice_begun_;
    if (passed >= kSlice) {
      const auto bytes =
          static_cast<double>(traffic.taken_bytes) - static_cast<double>(slice_begin_.taken_bytes);
      num_flooded_ = bytes > kBytesPerSlice * (passed / kSlice) ? num_flooded_ + 1 : 0;
      slice_begin_ = traffic;
      slice_begun_ = now;
    }
    return num_flooded_ >= kNumSlices;
  }

 private:
  ConnectionTraffic slice_begin_;
  Time slice_begun_;
  int num_flooded_ = 0;  // slices in a row that had too much
};

}  // namespace swiglu::server
