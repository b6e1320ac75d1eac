// SPDX-License-Identifier: Apache-2.0
//
// Cuts what does not fit into one message into chunks, and spreads large calls over connections: a
// decorator of a connection. chunk_queue.h decides which chunk comes next.
#pragma once

#include <atomic>
#include <cstdint>

#include "client/event_queue.h"
#include "client/server_choice.h"
#include "swiglu/connection.h"

namespace swiglu::client {

// Sends an inference as one message if that fits into `max_message_bytes`, else in chunks of
// `chunk_bytes`. If the server answers RESOURCE_EXHAUSTED to one message larger than `chunk_bytes`,
// sends it again in chunks. Chunks of an MLP are whole rows. An inference of gradients of weights
// is never split. All messages share the limit.
//
// The chunks narrow to what the server takes: they come back as often as the server pushes them
// back within the limit. When a chunk fails, no further chunk starts, and the result is the first
// error: ABORTED if chunks were computed by different weights, RESOURCE_EXHAUSTED, before anything
// is sent, if a row, or an inference that is never split, does not fit into `max_message_bytes`. On
// error the content of the outputs is unspecified.
//
// One connection moves the bytes of a message one after the other. So an elementwise inference of
// 1 MiB or more that fits into one message goes in parts over several connections at once. Those
// that are under way share the connections. It fails as one message would.
//
// Thread-safe. All pointers must outlive it.
class SplittingConnection final : public Connection {
 public:
  // Up to `num_connections` chunks for each server are under way at once. `most_parts`, 1 or more,
  // is in how many chunks a large inference goes at most that fits into one message. REQUIRES:
  // `chunk_bytes` of the options is at most `max_message_bytes`.
  SplittingConnection(Connection* inner, const Options& options, int most_parts,
                      ServerChoice* servers, EventThreads* threads)
      : inner_(inner),
        max_message_bytes_(options.max_message_bytes),
        chunk_bytes_(options.chunk_bytes),
        num_connections_(options.num_connections),
        max_attempts_(options.max_attempts),
        most_parts_(most_parts),
        servers_(servers),
        threads_(threads) {}

  void StartInfer(const Inference& inference, const CallContext& context, Done done) override;

  int num_servers() const override { return inner_->num_servers(); }

 private:
  class Operation;

  void Send(const Inference& inference, const CallContext& context, Done done);
  // `refused` is what was sent before.
  void Split(const Inference& inference, const CallContext& context, CallStatistics refused,
             Done done);
  int64_t ChunkElements(const Inference& inference) const;
  // Sends a large inference in at most so many parts, or as a whole.
  void Spread(const Inference& inference, const CallContext& context, int most_parts, Done done);

  Connection* const inner_;
  const int64_t max_message_bytes_;
  const int64_t chunk_bytes_;
  const int num_connections_;
  const int max_attempts_;
  const int most_parts_;
  std::atomic<int> num_large_{0};  // inferences under way
  ServerChoice* const servers_;
  EventThreads* const threads_;
};

}  // namespace swiglu::client
