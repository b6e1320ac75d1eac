// SPDX-License-Identifier: Apache-2.0
//
// A place for one call of the client library at a time: which request is next, the memory for its
// answer, and how it is counted.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "absl/container/inlined_vector.h"
#include "absl/status/status.h"
#include "client/bench/byte_mix.h"
#include "client/bench/load.h"
#include "client/bench/model_call.h"
#include "client/bench/noting_connection.h"
#include "client/bench/pace.h"
#include "client/bench/request_data.h"
#include "swiglu/client.h"
#include "swiglu/tensor_place.h"

namespace swiglu::bench {

// Used by one thread. Its calls take the layers of the model in turn, and sizes at random.
class LibrarySlot {
 public:
  // `index` is the number of the slot among all of the load, and of its set of shared tensors.
  // `connection`, `options` and `data` outlive the slot's calls. `on_end` is that of a
  // NotingConnection.
  LibrarySlot(size_t index, const LoadOptions* options, const std::vector<RequestData>* data,
              client::Connection* connection, std::function<void()> on_end);
  LibrarySlot(const LibrarySlot&) = delete;
  LibrarySlot& operator=(const LibrarySlot&) = delete;

  // Makes the next call. Blocks until it has ended. REQUIRES: the call before is counted.
  void Call(const Turn& turn);

  // Starts the next call by a future. Returns false if the library has refused it at once: it has
  // ended then, and `on_end` is not called. REQUIRES: the call before is counted.
  bool Start(const Turn& turn);

  // Counts the call that has ended. Compares its answer, if that is asked for.
  void Count(const Pace& pace, Tally* tally);

 private:
  using Inputs = absl::InlinedVector<client::InputTensor, 3>;
  using Outputs = absl::InlinedVector<client::OutputTensor, 3>;

  const RequestData& data() const { return data_[size_]; }
  // Chooses the next call.
  void Begin(const Turn& turn);
  Inputs MakeInputs() const;
  Outputs MakeOutputs();
  client::CallOptions OptionsOfCall();
  absl::Status Compare() const;

  const size_t index_;
  const LoadOptions& options_;
  const std::vector<RequestData>& data_;
  const std::shared_ptr<NotingConnection> connection_;
  const client::Client client_;  // over the connection
  SizePicker sizes_;
  std::vector<std::byte> answer_;  // empty if the tensors are in shared memory
  size_t num_called_ = 0;

  // The call under way, or that has ended and is not counted yet.
  Turn turn_;
  size_t size_ = 0;
  size_t layer_ = 0;
  std::atomic<int64_t> num_chunks_{0};  // 0 if the call is not split
  ModelFuture future_;
  bool has_future_ = false;
  absl::Status status_;  // of a call without a future
};

}  // namespace swiglu::bench
