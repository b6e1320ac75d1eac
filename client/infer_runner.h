// SPDX-License-Identifier: Apache-2.0
//
// Runs an inference on the server, whole if it fits into a message, in chunks if not. The public
// class uses it, and it uses the connections.
#pragma once

#include <cstdint>
#include <functional>

#include "absl/status/status.h"
#include "client/connection_pool.h"
#include "client/infer_codec.h"
#include "swiglu/client.h"

namespace swiglu::client {

// Thread-safe. `pool` must outlive it.
class InferRunner {
 public:
  using OnChunk = std::function<void(int64_t num_done, int64_t num_chunks)>;

  // `num_connections` chunks are under way at once. Each has a thread that waits for it. REQUIRES:
  // it is at least 1, and `chunk_bytes` is at most `max_message_bytes`.
  InferRunner(const Options& options, ConnectionPool* pool) : options_(options), pool_(pool) {}

  // Sends the inference as one message if that fits into `max_message_bytes`, else in chunks; also
  // in chunks if the server answers RESOURCE_EXHAUSTED. Blocks until the outputs are filled or
  // `limit` has passed. All messages share `limit`. On error the content of the outputs is
  // unspecified. If chunks fail, it returns the error of the first, and starts no further chunk.
  // `on_chunk` may be empty. If `on_chunk` throws, this method rethrows the exception after all
  // running chunks have ended.
  absl::Status Run(const Inference& inference, const TimeLimit& limit, const OnChunk& on_chunk);

 private:
  absl::Status RunWhole(const Inference& inference, const TimeLimit& limit);
  absl::Status RunSplit(const Inference& inference, const TimeLimit& limit,
                        const OnChunk& on_chunk);

  const Options options_;
  ConnectionPool* const pool_;
};

}  // namespace swiglu::client
