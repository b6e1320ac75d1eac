// SPDX-License-Identifier: Apache-2.0
//
// The thread that looks at every connection. See the header.
#include "server/transport/flood_watch.h"

#include <algorithm>
#include <iterator>

namespace swiglu::server {

FloodWatch::FloodWatch(Connections* connections, const MessageWatch* messages)
    : connections_(connections), messages_(messages), thread_([this] { Run(); }) {}

FloodWatch::~FloodWatch() {
  {
    absl::MutexLock lock(&mutex_);
    stopping_ = true;
  }
  thread_.join();
}

void FloodWatch::Run() {
  while (true) {
    const Clock::time_point begun = Clock::now();
    LookAtAll();
    const Clock::duration took = Clock::now() - begun;
    const Clock::duration rest = std::max<Clock::duration>(kInterval, kRestFactor * took);
    absl::MutexLock lock(&mutex_);
    if (mutex_.AwaitWithTimeout(absl::Condition(&stopping_), absl::FromChrono(rest))) return;
  }
}

void FloodWatch::LookAtAll() {
  ++round_;
  for (const Connections::Taken& connection : connections_->TakenFromAll()) {
    ConnectionTraffic traffic = messages_->Traffic(connection.peer);
    traffic.taken_bytes = connection.bytes;
    const Clock::time_point now = Clock::now();
    Watched& watched =
        watched_.try_emplace(connection.inode, Watched{FloodLimit(traffic, now)}).first->second;
    watched.round = round_;
    if (watched.is_ended) continue;
    const FloodVerdict verdict = watched.limit.Judge(traffic, now);
    // Either fails where there is no descriptor; then it is tried again.
    if (verdict == FloodVerdict::kEnd) {
      watched.is_ended = connections_->End(connection.peer, EndReason::kFrames) > 0;
    } else if ((verdict == FloodVerdict::kPause) != watched.is_paused &&
               connections_->SetPaused(connection.peer, !watched.is_paused)) {
      watched.is_paused = !watched.is_paused;
    }
  }
  for (auto it = watched_.begin(); it != watched_.end();) {
    it = it->second.round == round_ ? std::next(it) : watched_.erase(it);
  }
}

}  // namespace swiglu::server
