// SPDX-License-Identifier: Apache-2.0
//
// Whether three tensors are the matrices of an MLP, decided by their dtypes and shapes. Pure.
#pragma once

#include "absl/status/statusor.h"
#include "server/weights/layer_plan.h"
#include "server/weights/mlp_layer.h"
#include "server/weights/model_files.h"

namespace swiglu::server {

struct ShapedLayer {
  MlpLayer layer;
  LayerPlaces places;
};

// The tensors of a layer. If it is fused, `gate` and `up` are the same tensor.
struct LayerTensors {
  const PlacedTensor& gate;
  const PlacedTensor& up;
  const PlacedTensor& down;
};

// The MLP that `tensors` make up. Gate and up are [I,H] and down is [H,I]; a fused tensor of gate
// and up is [2 I,H]. INVALID_ARGUMENT, with a sentence that begins with the path of the tensor's
// file, if a dtype is neither F16 nor BF16, if the dtypes differ, if a shape is another one, or if
// H or I is not a multiple of kMlpSizeStep from that to kMaxMlpSize ("swiglu/cpu_mlp.h").
// Thread-safe.
absl::StatusOr<ShapedLayer> ShapeLayer(const PlannedLayer& planned, const LayerTensors& tensors);

}  // namespace swiglu::server
