// SPDX-License-Identifier: Apache-2.0
//
// The tensors of a load in shared memory: a set of inputs and outputs for each request under way.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "client/bench/model.h"
#include "client/bench/request_data.h"
#include "client/bench/shared_region.h"
#include "client/infer_codec.h"
#include "swiglu/client.h"
#include "swiglu/tensor_place.h"

namespace swiglu::bench {

enum class SharedMemory { kNone, kSystem, kCuda };

// All sets are in one region. A smaller request uses the beginnings of a set's tensors. Only one
// request at a time may use a set. Any threads may use different sets.
class SharedTensors {
 public:
  // Makes `num_sets` sets, 1 or more, for requests of at most the size of `largest`. Each set has
  // the inputs of `largest`, rotated by one element more than in the set before. At first the
  // outputs hold NaNs, which differ from every result. `client` must outlive it. REQUIRES: `kind`
  // is not kNone.
  static absl::StatusOr<std::unique_ptr<SharedTensors>> Create(const client::Client& client,
                                                               SharedMemory kind, int num_sets,
                                                               const RequestData& largest);

  // Input or output k of a set, for requests of the size of `data`.
  client::InputTensor Input(size_t set, size_t k, const RequestData& data) const;
  client::OutputTensor Output(size_t set, size_t k, const RequestData& data) const;

  // A request of the size of `data` to `model.names[layer]`.
  client::Inference ToInference(size_t set, size_t layer, const RequestData& data) const;

  // Call this when such a request has ended. `status` tells whether its results are there.
  void Finish(size_t set, size_t layer, const RequestData& data, const absl::Status& status);

  // For each set, sends the inputs of its last request to the server once more, in a message, and
  // compares the answer bit for bit with the results in shared memory. Leaves out requests that
  // failed. Returns how many requests were compared. DATA_LOSS, naming the output, if a result
  // differs. REQUIRES: no request is under way.
  absl::StatusOr<int64_t> Check(client::Client& client) const;

 private:
  // The last request on a set.
  struct Last {
    int64_t num_elements = 0;  // 0: there are no results
    size_t layer = 0;
  };

  SharedTensors(const RequestData& largest, int num_sets);

  int64_t num_bytes() const { return set_bytes_ * static_cast<int64_t>(last_.size()); }
  client::RegionPart Place(size_t set, size_t tensor, int64_t num_elements) const;
  absl::Status Fill(const RequestData& largest);
  absl::Status CheckSet(client::Client& client, size_t set) const;

  const Model& model_;
  const int64_t tensor_bytes_;  // from the beginning of a tensor to that of the next
  const int64_t set_bytes_;
  std::vector<Last> last_;  // by set
  std::unique_ptr<SharedRegion> region_;
};

}  // namespace swiglu::bench
