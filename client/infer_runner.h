// SPDX-License-Identifier: Apache-2.0
//
// Runs an inference on the server: in one message if it fits into one, else in chunks.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "absl/types/optional.h"
#include "client/chunk_queue.h"
#include "client/connection_pool.h"
#include "client/infer_codec.h"
#include "client/retry.h"
#include "swiglu/client.h"

namespace swiglu::client {

// Thread-safe. `pool` must outlive it.
class InferRunner {
 public:
  using OnChunk = std::function<void(int64_t num_done, int64_t num_chunks)>;

  // Up to `num_connections` chunks for each server are under way at once. Each has a thread that
  // waits for it.
  // REQUIRES: `num_connections` is at least 1, and `chunk_bytes` is at most `max_message_bytes`.
  InferRunner(const Options& options, ConnectionPool* pool)
      : options_(options), pool_(pool), budget_(options.retry_budget) {}

  // Sends the inference as one message if that fits into `max_message_bytes`, else in chunks. If
  // the server answers RESOURCE_EXHAUSTED to one message larger than `chunk_bytes`, this method
  // sends the inference again in chunks. Chunks of an MLP are whole rows. An inference of gradients
  // of weights is never split. Blocks until the outputs are filled, an error occurs or `limit` has
  // passed. All messages share `limit`.
  //
  // A message that fails is sent again as retry.h says, up to `max_attempts` times. If there is
  // another server that is not avoided, that one gets it at once. What the server may have computed
  // over its own inputs, in a region, is not sent again. The chunks of a split inference narrow to
  // what the server takes (chunk_queue.h): they come back as often as the server pushes them back
  // within `limit`.
  //
  // Returns the SHA-256 of the weights that computed the outputs, empty if the model has none. On
  // error the content of the outputs is unspecified. When a chunk fails, no further chunk starts,
  // and this method returns the first error. ABORTED if chunks were computed by different weights.
  // RESOURCE_EXHAUSTED, before anything is sent, if a row, or an inference that is never split,
  // does not fit into `max_message_bytes`. `on_chunk` may be empty. If it throws, this method
  // rethrows the exception after all running chunks have ended.
  absl::StatusOr<std::string> Run(const Inference& inference, const TimeLimit& limit,
                                  const OnChunk& on_chunk);

 private:
  // What came of a message: the weights that computed it, or an error and the server's advice.
  struct Outcome {
    absl::StatusOr<std::string> weights;
    absl::optional<absl::Duration> pushback;
    int server = 0;
  };
  enum class OnPushback { kRetry, kReturn };

  absl::StatusOr<std::string> RunWhole(const Inference& inference, const TimeLimit& limit);
  absl::StatusOr<std::string> RunSplit(const Inference& inference, const TimeLimit& limit,
                                       const OnChunk& on_chunk);
  void RunChunk(const Inference& inference, const Chunk& chunk, const TimeLimit& limit,
                const OnChunk& on_chunk, ChunkQueue& queue);
  Outcome RunWithRetries(const Inference& inference, const TimeLimit& limit,
                         OnPushback on_pushback);
  Outcome RunOnce(const Inference& inference, const TimeLimit& limit, const ServerSet& tried);
  int64_t ChunkElements(const Inference& inference) const;
  int64_t LeastElements(const Inference& inference) const;

  const Options options_;
  ConnectionPool* const pool_;
  RetryBudget budget_;
};

}  // namespace swiglu::client
