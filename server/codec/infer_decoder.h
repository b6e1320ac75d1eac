// SPDX-License-Identifier: Apache-2.0
//
// Checks a ModelInferRequest that infer_message.h has taken apart. Describes its model, its shape,
// and where each input's bytes lie in the slices. The checks neither copy nor read the tensors.
// Pure functions.
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
#include "server/codec/infer_message.h"
#include "server/codec/slice_reader.h"
#include "server/core/executor.h"
#include "server/core/model.h"
#include "server/core/model_registry.h"

namespace swiglu::server {

// The part of a region that a request names as the place of a tensor.
struct RegionPart {
  std::string region;
  int64_t offset = 0;
  std::optional<int64_t> size_bytes;  // a valid request always names it
};

// Which tensors of a request lie in regions: the inputs in the order of Model::inputs, the outputs
// by their numbers.
struct RegionParts {
  std::array<std::optional<RegionPart>, kMaxTensors> inputs;
  std::array<std::optional<RegionPart>, kMaxOutputs> outputs;
};

// The description of a request that CheckInferMessage has checked.
struct InferPlan {
  const Model* model = nullptr;
  // The weights with which the whole request is computed; nullptr if the model has none.
  std::shared_ptr<const Weights> weights;
  std::vector<int64_t> shape;
  int64_t num_elements = 0;
  int64_t tensor_bytes = 0;  // of each input, and of each output but gradients
  // Where input k of the model lies: in the slices, or in the envelope (typed contents that are not
  // one packed run). Both are nullptr if the input lies in a region. Both may be nullptr if there
  // are no elements.
  struct Source {
    const TensorBytes* bytes = nullptr;
    const google::protobuf::RepeatedField<float>* values = nullptr;
  };
  std::array<Source, kMaxTensors> sources;
  // The numbers of the outputs that were asked for, in the order of the answer.
  std::vector<int> outputs;
  // nullptr: no tensor lies in a region.
  std::shared_ptr<const RegionParts> regions;
  // The `timeout` and `priority` parameters.
  std::optional<std::chrono::microseconds> timeout;
  Priority priority = Priority::kNormal;

  // Whether the bytes of that output go into the answer.
  bool IsInline(int output) const {
    return regions == nullptr || !regions->outputs[output].has_value();
  }

  int64_t OutputBytes(int output) const {
    const GradientOutput* const gradient = model->FindGradient(output);
    return gradient == nullptr ? tensor_bytes : gradient->size_bytes();
  }

  bool has_gradients() const;
  // Whether a gradient's bytes go into the answer.
  bool has_inline_gradients() const;
  // The outputs to compute: those that were asked for if there are gradients among them, else every
  // output but gradients.
  OutputSet ComputedOutputs() const;
};

// Returns the one of `models` that a request names, and checks the version. Errors: NOT_FOUND or
// INVALID_ARGUMENT, as the protocol says.
absl::StatusOr<const Model*> ResolveModel(const std::string& name, const std::string& version,
                                          const ModelRegistry& models);

// Checks all rules for the data except those that depend on the regions (see region_tensors.h). The
// plan refers to `message` and to one of `models`. If `takes_regions` is false, returns
// UNIMPLEMENTED for a tensor in a region.
absl::StatusOr<InferPlan> CheckInferMessage(const InferMessage& message,
                                            const ModelRegistry& models,
                                            bool takes_regions = false);

// Reads each input of a plan from the input's beginning. Owns copies of typed values, but not the
// slices. Cheap to copy; a copy keeps its own position.
class PlanReader final : public InputReader {
 public:
  PlanReader() = default;
  // The message's slices must outlive the reader and all of its copies.
  explicit PlanReader(const InferPlan& plan);

  void Read(int k, std::byte* target, size_t size_bytes) override;
  // Skips `size_bytes` in every input.
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
