// SPDX-License-Identifier: Apache-2.0
//
// The six models that the server offers, one per operation and dtype. Constant tables: all code
// that needs a model's name, its tensors or its element size gets them here.
#pragma once

#include <cstdint>

#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "swiglu/dtype.h"

namespace swiglu::server {

enum class Op : uint8_t { kForward, kBackward };

inline constexpr int kNumOps = 2;
inline constexpr int kNumDtypes = 3;
inline constexpr int kNumModels = kNumOps * kNumDtypes;

// The largest number of inputs of an operation, and also of outputs.
inline constexpr int kMaxTensors = 3;

// One operation on one dtype. Instances live as long as the process; compare and pass them by
// pointer.
struct Model {
  // Position in `Models()`, 0 to 5.
  int index;
  Op op;
  Dtype dtype;
  // The name in the protocol, and the metric label: `swiglu_forward_fp16` and so on.
  absl::string_view name;
  // Forward: e, g. Backward: DW, e, g.
  absl::Span<const absl::string_view> inputs;
  // Forward: h. Backward: h, df, de. Output k may share its memory with input k.
  absl::Span<const absl::string_view> outputs;
};

// All models, in the order in which users see them.
absl::Span<const Model> Models();

// Returns the model with that name, or nullptr.
const Model* FindModel(absl::string_view name);

// The model of that operation and dtype.
const Model& GetModel(Op op, Dtype dtype);

// The bytes of all inputs and outputs together, if each has `num_elements` elements.
int64_t BytesReadAndWritten(const Model& model, int64_t num_elements);

// `FP16`, `BF16`, `FP32`: the protocol's datatype names.
absl::string_view DatatypeName(Dtype dtype);

// `forward`, `backward`, and `fp16`, `bf16`, `fp32`: the metric labels.
absl::string_view OpLabel(Op op);
absl::string_view DtypeLabel(Dtype dtype);

}  // namespace swiglu::server
