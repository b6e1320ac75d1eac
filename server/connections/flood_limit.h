// SPDX-License-Identifier: Apache-2.0
//
// Decides whether a connection floods the server. A flood is a long series of bytes that belong to
// no message: frames without content (pings, settings, windows) or headers that never end. They
// cost the peer almost nothing and the server much. Pure: counts and times are passed in.
#pragma once

#include <chrono>
#include <cstdint>

namespace swiglu::server {

// What the server knows of a connection at one moment. The counts only grow.
struct ConnectionTraffic {
  // The bytes that gRPC has read from the connection since it began.
  uint64_t taken_bytes = 0;
  // The number of its calls, plus the number of messages that arrived or were given up.
  uint64_t num_steps = 0;
  // Whether a call waits for a message, or a stream of messages is open. A stream counts, too,
  // while the server does not read from it because it has too many unanswered requests. While this
  // is true, all bytes count as bytes of messages.
  bool is_awaiting = false;
};

// What to do with a connection.
enum class FloodVerdict : uint8_t {
  kNone,
  // Let the kernel drop the connection's data for a while, so that the server can serve others.
  kPause,
  // The connection floods the server. End it.
  kEnd,
};

// The limit of one connection. Not thread-safe.
class FloodLimit {
 public:
  using Time = std::chrono::steady_clock::time_point;
  using Duration = std::chrono::steady_clock::duration;

  // A stretch of time is flooded if more than kBytesPerStretch arrive per kStretch while
  // `num_steps` stays the same.
  static constexpr int64_t kBytesPerStretch = 512 << 10;
  static constexpr std::chrono::milliseconds kStretch{100};
  // After a flooded stretch the connection is paused for this time, because a flood makes other
  // connections wait. An honest client loses only this time.
  static constexpr std::chrono::milliseconds kPauseTime{200};
  // A connection is ended when its flooded stretches add up to this time. The pauses between the
  // stretches do not count. An honest client may send a shorter burst: it may fill the windows of
  // HTTP/2 with messages of calls that the server has not begun, or has refused. On a fast network,
  // gRPC makes these windows as large as 150 MB.
  static constexpr std::chrono::milliseconds kMostFlooded{2000};
  // After a pause, the peer's TCP waits before it sends again. So silence during this time does not
  // mean that the flood is over.
  static constexpr std::chrono::milliseconds kBackOff{2000};

  // `first`: the connection's traffic at `now`.
  FloodLimit(const ConnectionTraffic& first, Time now) : first_(first), begun_(now) {}

  // Call this with the traffic at `now`.
  FloodVerdict Judge(const ConnectionTraffic& traffic, Time now) {
    if (traffic.is_awaiting || traffic.num_steps != first_.num_steps) {
      *this = FloodLimit(traffic, now);
    } else if (now < paused_until_) {
      Begin(traffic, now);
    } else if (now - begun_ >= kStretch) {
      EndStretch(traffic, now);
    }
    if (flooded_ >= kMostFlooded) return FloodVerdict::kEnd;
    return now < paused_until_ ? FloodVerdict::kPause : FloodVerdict::kNone;
  }

 private:
  void Begin(const ConnectionTraffic& traffic, Time now) {
    first_ = traffic;
    begun_ = now;
  }
  void EndStretch(const ConnectionTraffic& traffic, Time now) {
    const std::chrono::duration<double> passed = now - begun_;
    const auto bytes =
        static_cast<double>(traffic.taken_bytes) - static_cast<double>(first_.taken_bytes);
    if (bytes > kBytesPerStretch * (passed / kStretch)) {
      flooded_ += now - begun_;
      paused_until_ = now + kPauseTime;
    } else if (now > paused_until_ + kBackOff) {
      flooded_ = Duration::zero();
    }
    Begin(traffic, now);
  }

  // The traffic and the time at the beginning of the current stretch.
  ConnectionTraffic first_;
  Time begun_;
  Duration flooded_ = Duration::zero();  // the flooded stretches so far, without pauses
  Time paused_until_ = Time::min();
};

}  // namespace swiglu::server
