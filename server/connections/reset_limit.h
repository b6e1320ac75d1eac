// SPDX-License-Identifier: Apache-2.0
//
// Limits how many calls a peer may reset. A call that is begun and reset at once costs the peer two
// frames, but costs the server a whole call. Some thousands a second on one connection keep the
// server from all other work. Pure: the clock is passed in.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <iterator>
#include <string>
#include <unordered_map>

#include "absl/strings/string_view.h"

namespace swiglu::server {

// Counts resets by peer. Forgets peers whose resets are past, so it holds only peers that reset
// calls within the last second or so. Not thread-safe.
class ResetLimit {
 public:
  using Time = std::chrono::steady_clock::time_point;

  // A peer may reset kAtOnce calls at once, and kPerSecond a second. That is four times the number
  // of streams that a connection may have. So a caller may let the deadlines of all its calls pass
  // at once.
  static constexpr double kAtOnce = 4096;
  static constexpr double kPerSecond = 4096;

  // `peer` has reset a call at `now`. True if that is past its limit; the peer's count then begins
  // at zero again.
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
