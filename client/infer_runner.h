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

namespace swiglu::client {

struct InferRunnerOptions {
  // Largest message, in bytes, that either side may send.
  int64_t max_message_bytes;
  // Largest message, in bytes, of an inference that is split. At most max_message_bytes, at least
  // 4096.
  int64_t chunk_bytes;
  // How many chunks are under way at once. Each has a thread that waits for it. At least 1.
  int num_parallel;
};

// Thread-safe. `pool` must outlive it.
class InferRunner {
 public:
  using OnChunk = std::function<void(int64_t num_done, int64_t num_chunks)>;

  InferRunner(const InferRunnerOptions& options, ConnectionPool* pool);

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

  const InferRunnerOptions options_;
  ConnectionPool* const pool_;
};

}  // namespace swiglu::client
