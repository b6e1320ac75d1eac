// SPDX-License-Identifier: Apache-2.0
//
// One inference as the library sees it, and its encoding. A request's tensors are sent from the
// caller's memory without a copy. A response's tensors are copied once, from gRPC's buffers to the
// outputs.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/container/inlined_vector.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/optional.h"
#include "absl/types/span.h"
#include "client/connection_pool.h"
#include "grpcpp/support/byte_buffer.h"
#include "swiglu/tensor.h"
#include "swiglu/tensor_place.h"

namespace swiglu::client {

// The full path of the method.
inline constexpr char kModelInfer[] = "/inference.GRPCInferenceService/ModelInfer";

// One run of one model: its inputs, and the memory for its outputs. All tensors have one dtype and
// shape, except gradients of weights. Borrows everything but shapes and parts of regions.
struct Inference {
  // A tensor in a region has no `bytes`, because no message carries its bytes.
  struct Input {
    absl::string_view name;
    absl::Span<const std::byte> bytes;
    absl::optional<RegionPart> part = absl::nullopt;
  };
  struct Output {
    absl::string_view name;
    absl::Span<std::byte> bytes;
    absl::optional<RegionPart> part = absl::nullopt;
    // The shape of a gradient of weights, which is FP32. None for an output like the inputs.
    absl::optional<Shape> gradient_shape = absl::nullopt;
  };

  absl::string_view model;
  Dtype dtype = Dtype::kFp32;
  Shape shape;
  // The last dimension of the shape, for a model of an MLP; 0 for an element-wise model.
  int64_t row_elements = 0;
  absl::InlinedVector<Input, 3> inputs;
  absl::InlinedVector<Output, 4> outputs;

  int64_t tensor_bytes() const {
    const Input& input = inputs.front();
    return input.part ? input.part->size_bytes : static_cast<int64_t>(input.bytes.size());
  }
  int64_t num_elements() const { return tensor_bytes() / ElementBytes(dtype); }

  // Whether the model has weights, and a row of its tensors cannot be cut.
  bool is_mlp() const { return row_elements > 0; }
  // Whether an output is in a region, over a part of an input.
  bool overwrites_inputs() const;
  // Whether gradients of weights are among the outputs. They are sums over all rows, so such an
  // inference has no parts.
  bool has_gradients() const;

  // An inference over the elements [first, first + count) of every tensor. Its shape has rank 1, or
  // is that of some rows. REQUIRES: if the model is that of an MLP, both numbers are whole rows,
  // and no output is a gradient of weights.
  Inference Part(int64_t first, int64_t count) const;
};

// The number of tensors in the request or in the response, whichever number is greater. Tensors in
// regions do not count.
int64_t NumCarried(const Inference& inference);

// An upper bound for the sizes, in bytes, of the request and of the response.
int64_t LargestMessageBytes(const Inference& inference);

// An upper bound for the bytes that a message has in addition to the bytes of its tensors. It holds
// for the messages of every `inference.Part`, because the shape of a part has rank 1 or 2.
int64_t MaxPartOverhead(const Inference& inference);

// Appends what precedes the `size` bytes of a field: the field's tag and `size`.
void AppendFrame(uint32_t tag, size_t size, std::string* out);

// The ModelInferRequest. `loan` counts its slices over the inputs.
OutgoingMessage EncodeInferRequest(const Inference& inference, Loan* loan);

// Checks that `response` is a ModelInferResponse to `inference`, and copies its tensors to the
// outputs. Returns the parameter `weights_sha256` of the response, which is empty if the model has
// no weights. INTERNAL, with what is wrong in the message, if a name, a datatype, a shape, a size
// or the number of outputs is not the expected one, or if the response of an MLP lacks that
// parameter. The content of the outputs is then unspecified.
absl::StatusOr<std::string> DecodeInferResponse(grpc::ByteBuffer response,
                                                const Inference& inference);

}  // namespace swiglu::client
