// SPDX-License-Identifier: Apache-2.0
//
// Sends a small call that waits long for its answer a second time, to another server: a decorator
// of a connection. The first answer counts. So a server that hangs costs its calls little time.
#pragma once

#include <cstdint>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "client/event_queue.h"
#include "client/retry.h"
#include "client/server_choice.h"
#include "swiglu/connection.h"

namespace swiglu::client {

struct HedgingOptions {
  // How long a call waits for its answer before it is sent a second time. Above 0.
  absl::Duration delay = absl::Milliseconds(10);
  // The largest inference that is sent a second time, in bytes of its inputs: of one call, and of
  // calls that are joined.
  int64_t max_call_bytes = int64_t{64} << 10;
  int64_t max_joined_bytes = int64_t{1} << 20;
  // How many second attempts each inference of such a size earns.
  double hedges_per_call = 0.1;
  // How often one more is earned by nobody. So no call hangs that came last.
  absl::Duration hedge_interval = absl::Seconds(1);
};

// What is sent a second time: an inference of at most so many bytes, without regions and gradients
// of weights, that has no result after the delay. With several servers, the second attempt goes to
// another one, and waits until one is not avoided. When one attempt has succeeded, the other is
// cancelled. If both have failed, the error is that of the one that failed first. If no second
// attempt is earned, the inference asks for one again after each delay. A server that is silent
// while the other one answers is avoided for a while. Thread-safe. All pointers must outlive it.
class HedgingConnection final : public Connection {
 public:
  HedgingConnection(Connection* inner, const HedgingOptions& options, ServerChoice* servers,
                    EventThreads* threads)
      : inner_(inner),
        options_(options),
        budget_(options.hedges_per_call),
        servers_(servers),
        threads_(threads) {}

  void StartInfer(const Inference& inference, const CallContext& context, Done done) override;

  int num_servers() const override { return inner_->num_servers(); }

 private:
  class OwnInference;
  struct Attempt;
  class Race;

  bool IsSmall(const Inference& inference, const CallContext& context) const;
  // Whether a second attempt has a server to go to: another one, or the only one.
  bool HasOther(const ServerSet& tried) const;
  // Whether a second attempt is left. If so, it is used up.
  bool SpendOnHedge();

  Connection* const inner_;
  const HedgingOptions options_;
  RetryBudget budget_;
  ServerChoice* const servers_;
  EventThreads* const threads_;
  absl::Mutex mutex_;
  absl::Time next_unearned_ ABSL_GUARDED_BY(mutex_) = absl::Now() + options_.hedge_interval;
};

}  // namespace swiglu::client
