// SPDX-License-Identifier: Apache-2.0
//
// The innermost connection: an inference in one message to one server, once. A small call with
// `context.streams` may go over a stream, and is sent a second time if it fails there.
#pragma once

#include "client/connection_pool.h"
#include "client/event_queue.h"
#include "swiglu/connection.h"

namespace swiglu::client {

// Thread-safe. `pool` and `threads` must outlive it.
class ModelConnection final : public Connection {
 public:
  ModelConnection(ConnectionPool* pool, EventThreads* threads) : pool_(pool), threads_(threads) {}

  void StartInfer(const Inference& inference, const CallContext& context, Done done) override;

  int num_servers() const override { return pool_->num_servers(); }

 private:
  void SendUnary(const Inference& inference, const CallContext& context, Done done);
  // REQUIRES: context.streams->Take was true.
  void SendOverStream(const Inference& inference, const CallContext& context,
                      absl::Duration timeout, Done done);

  ConnectionPool* const pool_;
  EventThreads* const threads_;
};

}  // namespace swiglu::client
