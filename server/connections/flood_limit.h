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

// What to do with a connection.
enum class FloodVerdict : uint8_t {
  kNone,
  // Take nothing from it for now, so that the server gets round to others.
  kPause,
  // It floods the server.
  kEnd,
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

  // What may be a flood keeps others waiting while it lasts. So a connection that brings more than
  // kBytesPerBurst within kBurst, without any call, is paused for kPauseTime. An honest client
  // loses nothing but that time.
  static constexpr int64_t kBytesPerBurst = 1 << 20;
  static constexpr std::chrono::milliseconds kBurst{100};
  static constexpr std::chrono::milliseconds kPauseTime{400};
  // After a pause TCP waits before it sends again. So for this long, silence is no sign that the
  // flood is over.
  static constexpr std::chrono::milliseconds kBackOff{2000};

  // `first`: what is known of the connection now.
  FloodLimit(const ConnectionTraffic& first, Time now) : slice_(first, now), burst_(first, now) {}

  // Call this with the traffic at `now`.
  FloodVerdict Judge(const ConnectionTraffic& traffic, Time now) {
    if (traffic.is_awaiting || traffic.num_steps != slice_.first.num_steps) {
      *this = FloodLimit(traffic, now);
      return FloodVerdict::kNone;
    }
    if (now - slice_.begun >= kSlice) {
      if (slice_.HasMore(kBytesPerSlice, kSlice, traffic, now)) {
        ++num_flooded_;
      } else if (now > paused_until_ + kBackOff) {
        num_flooded_ = 0;
      }
      slice_ = Stretch(traffic, now);
    }
    if (now - burst_.begun >= kBurst) {
      if (burst_.HasMore(kBytesPerBurst, kBurst, traffic, now)) paused_until_ = now + kPauseTime;
      burst_ = Stretch(traffic, now);
    }
    if (num_flooded_ >= kNumSlices) return FloodVerdict::kEnd;
    return now < paused_until_ ? FloodVerdict::kPause : FloodVerdict::kNone;
  }

 private:
  // A stretch of time, with the traffic at its beginning.
  struct Stretch {
    Stretch(const ConnectionTraffic& traffic, Time now) : first(traffic), begun(now) {}
    // Whether more than `bytes` in `time` have come since then.
    bool HasMore(int64_t bytes, std::chrono::duration<double> time,
                 const ConnectionTraffic& traffic, Time now) const {
      const auto came =
          static_cast<double>(traffic.taken_bytes) - static_cast<double>(first.taken_bytes);
      return came > static_cast<double>(bytes) * ((now - begun) / time);
    }
    ConnectionTraffic first;
    Time begun;
  };

  Stretch slice_;
  Stretch burst_;
  int num_flooded_ = 0;  // slices in a row that had too much
  Time paused_until_ = Time::min();
};

}  // namespace swiglu::server
