// SPDX-License-Identifier: Apache-2.0
//
// Limits how many calls a peer may reset. A call that is begun and reset at once costs the peer two
// frames, but costs the server a whole call. A few thousand such calls per second on one connection
// stop all other work of the server. Pure: the time is passed in.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <iterator>
#include <string>
#include <unordered_map>

#include "absl/strings/string_view.h"

namespace swiglu::server {

// Counts resets by peer. Each count falls with time, and is zero at the latest one second after the
// last reset. From time to time, peers with a count of zero are forgotten. Not thread-safe.
class ResetLimit {
 public:
  using Time = std::chrono::steady_clock::time_point;

  // A peer may reset kAtOnce calls at once, and kPerSecond calls per second. Each limit is four
  // times the number of calls that a connection may have open. So a client may let the deadlines of
  // all its calls pass at once.
  static constexpr double kAtOnce = 4096;
  static constexpr double kPerSecond = 4096;

  // Counts a call that `peer` reset at `now`. Returns true if the peer is past its limit. The count
  // then starts again at zero.
  bool IsExceeded(absl::string_view peer, Time now) {
    if (resets_.size() >= sweep_at_) Sweep(now);
    const auto [it, is_new] = resets_.try_emplace(std::string(peer), Resets{now, 0});
    Resets& resets = it->second;
    resets.count = Left(resets, now) + 1;
    resets.at = now;
    if (resets.count <= kAtOnce) return false;
    resets_.erase(it);
    return true;
  }

  size_t num_peers() const { return resets_.size(); }

 private:
  // The count of one peer's resets, as it was at time `at`.
  struct Resets {
    Time at;
    double count = 0;
  };

  static double Left(const Resets& resets, Time now) {
    const std::chrono::duration<double> passed = now - resets.at;
    return std::max(0.0, resets.count - kPerSecond * passed.count());
  }

  void Sweep(Time now) {
    for (auto it = resets_.begin(); it != resets_.end();) {
      it = Left(it->second, now) == 0 ? resets_.erase(it) : std::next(it);
    }
    sweep_at_ = std::max<size_t>(kFirstSweep, 2 * resets_.size());
  }

  static constexpr size_t kFirstSweep = 64;
  std::unordered_map<std::string, Resets> resets_;
  size_t sweep_at_ = kFirstSweep;  // with this many peers, `Sweep` runs
};

}  // namespace swiglu::server
