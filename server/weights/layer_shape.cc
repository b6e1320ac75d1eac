// SPDX-License-Identifier: Apache-2.0
//
// The tensor of the gate gives dtype, H and I; the others must fit it. See the header.
#include "server/weights/layer_shape.h"

#include <optional>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "server/formats/safetensors.h"
#include "swiglu/cpu_mlp.h"

namespace swiglu::server {
namespace {

absl::Status Unfit(const PlacedTensor& place, absl::string_view what) {
  return absl::InvalidArgumentError(absl::StrCat(place.file->path(), ": tensor ",
                                                 QuotedTensorName(place.tensor.name), " ", what));
}

std::optional<Dtype> DtypeOf(absl::string_view name) {
  if (name == "F16") return Dtype::kFp16;
  if (name == "BF16") return Dtype::kBf16;
  return std::nullopt;
}

bool IsMlpSize(int64_t size) {
  return size >= kMlpSizeStep && size <= kMaxMlpSize && size % kMlpSizeStep == 0;
}

// The layer as the tensor of the gate describes it.
absl::StatusOr<MlpLayer> LayerOfGate(const PlannedLayer& planned, const PlacedTensor& gate) {
  const std::vector<int64_t>& shape = gate.tensor.shape;
  const std::optional<Dtype> dtype = DtypeOf(gate.tensor.dtype);
  if (!dtype) {
    return Unfit(
        gate, absl::StrCat("is ", QuotedTensorName(gate.tensor.dtype), "; expected F16 or BF16"));
  }
  const int64_t num_matrices = planned.is_fused ? 2 : 1;
  if (shape.size() != 2 || shape[0] % num_matrices != 0 || !IsMlpSize(shape[0] / num_matrices) ||
      !IsMlpSize(shape[1])) {
    return Unfit(gate,
                 absl::StrCat("has shape ", ShownShape(shape), "; expected ",
                              planned.is_fused ? "[2 I,H]" : "[I,H]", " with I and H multiples of ",
                              kMlpSizeStep, " from ", kMlpSizeStep, " to ", kMaxMlpSize));
  }
  return MlpLayer{planned.number, *dtype, shape[1], shape[0] / num_matrices};
}

// Whether `place` has the dtype of `gate` and the shape `expected`.
absl::Status CheckFits(const PlacedTensor& place, const PlacedTensor& gate,
                       const std::vector<int64_t>& expected) {
  if (place.tensor.dtype != gate.tensor.dtype) {
    return Unfit(place,
                 absl::StrCat("is ", QuotedTensorName(place.tensor.dtype), "; expected ",
                              gate.tensor.dtype, " as ", QuotedTensorName(gate.tensor.name)));
  }
  if (place.tensor.shape == expected) return absl::OkStatus();
  return Unfit(place,
               absl::StrCat("has shape ", ShownShape(place.tensor.shape), "; expected ",
                            ShownShape(expected), ", because ", QuotedTensorName(gate.tensor.name),
                            " has ", ShownShape(gate.tensor.shape)));
}

}  // namespace

absl::StatusOr<ShapedLayer> ShapeLayer(const PlannedLayer& planned, const LayerTensors& tensors) {
  const absl::StatusOr<MlpLayer> layer = LayerOfGate(planned, tensors.gate);
  if (!layer.ok()) return layer.status();
  absl::Status status;
  if (!planned.is_fused) {
    status = CheckFits(tensors.up, tensors.gate, {layer->intermediate, layer->hidden});
  }
  if (status.ok()) {
    status = CheckFits(tensors.down, tensors.gate, {layer->hidden, layer->intermediate});
  }
  if (!status.ok()) return status;
  const uint64_t rows_before_up =
      planned.is_fused ? static_cast<uint64_t>(layer->matrix_bytes()) : 0;
  return ShapedLayer{*layer,
                     {{{tensors.gate.file, tensors.gate.offset},
                       {tensors.up.file, tensors.up.offset + rows_before_up},
                       {tensors.down.file, tensors.down.offset}}}};
}

}  // namespace swiglu::server
