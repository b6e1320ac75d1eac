// SPDX-License-Identifier: Apache-2.0
//
// What a model is: an operation on a dtype, with its names and the rules for its tensors. All code
// that needs one of these gets it from a `Model`. The six element-wise models are constant tables
// here. model_registry.h has every model that a server offers.
#pragma once

#include <array>
#include <bitset>
#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "server/core/weights.h"
#include "swiglu/dtype.h"

namespace swiglu::server {

// Forward and backward of SwiGLU itself, or of a whole MLP with its weights.
enum class Op : uint8_t { kForward, kBackward, kMlpForward, kMlpBackward };

inline constexpr int kNumDtypes = 3;

// The largest number of inputs of an operation, and also of outputs of the inputs' shape.
inline constexpr int kMaxTensors = 3;

// The largest number of gradients of weights.
inline constexpr int kMaxGradients = 3;

inline constexpr int kMaxOutputs = kMaxTensors + kMaxGradients;

// Outputs of a model, by their numbers.
using OutputSet = std::bitset<kMaxOutputs>;

// The gradient of a matrix of weights: an output that a request gets only if it names it. It is of
// FP32 and has the matrix's shape, so its size does not depend on the tensors of the request.
struct GradientOutput {
  absl::string_view name;  // must live as long as the model
  std::array<int64_t, 2> shape;

  int64_t size_bytes() const { return shape[0] * shape[1] * ElementBytes(Dtype::kFp32); }
};

// One operation on one dtype, for an MLP with the weights of one layer. Batches and reports refer
// to a model by pointer, so a model that is served does not move or change.
struct Model {
  // Its position among the models of its server. `ModelRegistry` sets it.
  int index = 0;
  Op op = Op::kForward;
  Dtype dtype = Dtype::kFp16;
  // The name in the protocol: `swiglu_forward_fp16` and so on.
  std::string name = {};
  // The value of the metrics' label `model`. Several models may have the same series: all layers
  // and both passes of an MLP do. Each of the six has its own, which is its name.
  std::string series = {};
  // Forward: e, g. Backward: DW, e, g. The names must live as long as the model.
  absl::Span<const absl::string_view> inputs = {};
  // Forward: h. Backward: h, df, de. Output k may share its memory with input k.
  absl::Span<const absl::string_view> outputs = {};
  // Backward of an MLP: d_gate_proj, d_up_proj, d_down_proj.
  std::vector<GradientOutput> gradients = {};
  // How many elements belong together. >= 1. More than 1: a tensor consists of rows of so many
  // elements, this is the last dimension of every request, and no row is cut. 1: the model works
  // element by element and takes any shape.
  int64_t row_elements = 1;
  // The shape that the metadata show for each tensor. -1 is any size.
  std::vector<int64_t> shown_shape = {};
  // The platform that the metadata show.
  std::string platform = {};
  // Further properties that the metadata show.
  std::map<std::string, std::string> properties = {};
  // Where the weights are; nullptr: the model needs none. Must outlive the model.
  const WeightsSlot* weights = nullptr;
  // The most rows in a batch of several requests and in a chunk of a large one. 0: the executor's
  // limit in bytes counts.
  int64_t max_batch_rows = 0;

  bool has_rows() const { return row_elements > 1; }

  // The outputs are numbered: first `outputs`, then `gradients`.
  int num_outputs() const { return static_cast<int>(outputs.size() + gradients.size()); }
  int GradientNumber(size_t gradient) const { return static_cast<int>(outputs.size() + gradient); }
  // The gradient with that number; nullptr if it is one of `outputs`.
  const GradientOutput* FindGradient(int output) const {
    const auto number = static_cast<size_t>(output);
    return number < outputs.size() ? nullptr : &gradients[number - outputs.size()];
  }
  absl::string_view OutputName(int output) const {
    const GradientOutput* const gradient = FindGradient(output);
    return gradient == nullptr ? outputs[static_cast<size_t>(output)] : gradient->name;
  }
};

// The six element-wise models, in the order in which users see them. They live as long as the
// process, and every `ModelRegistry` begins with them.
absl::Span<const Model> Models();

// The one of the six models with that name, or nullptr.
const Model* FindModel(absl::string_view name);

// The one of the six models with that operation and dtype. REQUIRES: `op` is element-wise.
const Model& GetModel(Op op, Dtype dtype);

// Whether `op` computes each element by itself, without weights.
inline bool IsElementwise(Op op) { return op == Op::kForward || op == Op::kBackward; }

// The series of all models of the MLP with that name: `mlp_NAME`. It also names the whole MLP to
// clients.
std::string MlpSeries(absl::string_view mlp);

// What a model of an MLP's layer needs to be told.
struct MlpModelOptions {
  Op op = Op::kMlpForward;  // or kMlpBackward
  Dtype dtype = Dtype::kBf16;
  std::string mlp;  // the name of the MLP
  int layer = 0;
  int64_t hidden = 0;
  int64_t intermediate = 0;
  const WeightsSlot* weights = nullptr;
  int64_t max_batch_rows = 0;
};

// The model `mlp_NAME_LAYER_forward`, from x to y, or `mlp_NAME_LAYER_backward`, from x and dy to
// dx and the gradients of the weights. All layers and both passes of an MLP share the series
// `mlp_NAME`.
Model MakeMlpModel(const MlpModelOptions& options);

// The most input bytes in a batch of several requests for `model`, and in a chunk.
// `executor_bytes`: the executor's limit.
int64_t MaxBatchBytes(const Model& model, int64_t executor_bytes);

// The most rows that are computed at once of a request for gradients of weights: sums over rows may
// be interrupted where a multiple of 16 rows ends, so that every device can have the same sums.
int64_t GradientRows(const Model& model);

// The most rows that are computed at once of a model that limits them: those of several requests,
// of a chunk, which has no fewer rows than CutElements wants, or GradientRows.
int64_t MostBatchRows(const Model& model);

// The bytes of all inputs and outputs together, without gradients of weights, if each has
// `num_elements` elements.
int64_t BytesReadAndWritten(const Model& model, int64_t num_elements);

// A tensor may be cut at each multiple of so many elements. A row ends there, and what follows is
// as aligned as the tensor's beginning, up to kSlabAlignment.
int64_t CutElements(const Model& model);

// `FP16`, `BF16`, `FP32`: the protocol's datatype names.
absl::string_view DatatypeName(Dtype dtype);

// `forward`, `mlp_forward` and so on, and `fp16`, `bf16`, `fp32`: the metric labels.
absl::string_view OpLabel(Op op);
absl::string_view DtypeLabel(Dtype dtype);

}  // namespace swiglu::server
