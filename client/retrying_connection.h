// SPDX-License-Identifier: Apache-2.0
//
// Sends again what has failed and may succeed: a decorator of a connection. retry.h has the rules.
#pragma once

#include <memory>

#include "client/event_queue.h"
#include "client/retry.h"
#include "client/server_choice.h"
#include "swiglu/connection.h"

namespace swiglu::client {

// Sends an inference up to `max_attempts` times. If there is another server that is not avoided,
// that one gets it at once, which takes nothing from the budget. What the server may have computed
// over its own inputs, in a region, is not sent again. Thread-safe. All pointers must outlive it.
class RetryingConnection final : public Connection {
 public:
  RetryingConnection(Connection* inner, int max_attempts, RetryBudget* budget,
                     ServerChoice* servers, EventThreads* threads)
      : inner_(inner),
        max_attempts_(max_attempts),
        budget_(budget),
        servers_(servers),
        threads_(threads) {}

  void StartInfer(const Inference& inference, const CallContext& context, Done done) override;

  int num_servers() const override { return inner_->num_servers(); }

 private:
  class Attempts;

  Connection* const inner_;
  const int max_attempts_;
  RetryBudget* const budget_;
  ServerChoice* const servers_;
  EventThreads* const threads_;
};

}  // namespace swiglu::client
