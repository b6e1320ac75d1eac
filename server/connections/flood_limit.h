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
  // Have the kernel drop its data for a while, so that the server gets round to others.
  kPause,
  // It floods the server.
  kEnd,
};

// Of one connection. Not thread-safe.
class FloodLimit {
 public:
  using Time = std::chrono::steady_clock::time_point;
  using Duration = std::chrono::steady_clock::duration;

  // A stretch of time is flooded if more than kBytesPerStretch come in kStretch, without any call.
  static constexpr int64_t kBytesPerStretch = 512 << 10;
  static constexpr std::chrono::milliseconds kStretch{100};
  // After a flooded stretch the connection is paused for so long, because a flood keeps others
  // waiting while it lasts. An honest client loses nothing but that time.
  static constexpr std::chrono::milliseconds kPauseTime{200};
  // A flood is a connection whose flooded stretches, one after the other, take longer than this.
  // Much may come at once without being a flood. Messages of calls that a busy server has not got
  // round to, or has refused, fill the windows of HTTP/2. gRPC makes these windows as large as
  // 150 MB on a fast wire.
  static constexpr std::chrono::milliseconds kMostFlooded{2000};
  // After a pause TCP waits before it sends again. So for this long, silence is no sign that the
  // flood is over.
  static constexpr std::chrono::milliseconds kBackOff{2000};

  // `first`: what is known of the connection now.
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

  // Of the stretch that lasts now.
  ConnectionTraffic first_;
  Time begun_;
  Duration flooded_ = Duration::zero();  // of the stretches so far, pauses left out
  Time paused_until_ = Time::min();
};

}  // namespace swiglu::server
