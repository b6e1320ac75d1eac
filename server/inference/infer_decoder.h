// SPDX-License-Identifier: Apache-2.0
//
// Makes a checked description of a ModelInferRequest that infer_message.h has taken apart: its
// model, its shape, and where each input's bytes lie among the slices. The tensors are not copied
// here, and not looked at. Pure functions.
#pragma once

#include <array>
#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "proto/inference.pb.h"
#include "server/batching/request.h"
#include "server/core/executor.h"
#include "server/core/model.h"
#include "server/inference/infer_message.h"
#include "server/inference/slice_reader.h"

namespace swiglu::server {

// A request that keeps every rule of the protocol.
struct InferPlan {
  const Model* model = nullptr;
  std::vector<int64_t> shape;
  int64_t num_elements = 0;
  int64_t tensor_bytes = 0;  // of each input, and of each output
  // Where input k of the model lies: in the slices, or else in the envelope (small typed contents
  // of FP32). Both are nullptr if there are no elements.
  struct Source {
    const TensorBytes* bytes = nullptr;
    const google::protobuf::RepeatedField<float>* values = nullptr;
  };
  std::array<Source, kMaxTensors> sources;
  // The outputs that were asked for, as indices into `model->outputs`, in the order of the answer.
  std::vector<int> outputs;
  // The `timeout` and `priority` parameters.
  std::optional<std::chrono::microseconds> timeout;
  Priority priority = Priority::kNormal;
};

// The model that a request names, with the version checked. NOT_FOUND or INVALID_ARGUMENT, as the
// protocol says.
absl::StatusOr<const Model*> ResolveModel(const std::string& name, const std::string& version);

// Checks every rule of the data. The plan refers to `message`.
absl::StatusOr<InferPlan> CheckInferMessage(const InferMessage& message);

// Reads each input of a plan from its beginning. Owns copies of typed values; does not own the
// slices. Cheap to copy: a copy is a bookmark.
class PlanReader final : public InputReader {
 public:
  PlanReader() = default;
  // The message's slices must outlive the reader and all of its copies.
  explicit PlanReader(const InferPlan& plan);

  void Read(int k, std::byte* target, size_t size_bytes) override;
  // Moves on by `size_bytes` in every input.
  void Skip(size_t size_bytes);

 private:
  struct Source {
    SliceReader bytes;
    // If set, the input is the rest of these bytes, from `num_read` on. They are at most as long as
    // an envelope.
    std::shared_ptr<const std::string> values;
    size_t num_read = 0;
  };
  std::array<Source, kMaxTensors> sources_;
};

}  // namespace swiglu::server
