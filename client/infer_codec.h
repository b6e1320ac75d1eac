// SPDX-License-Identifier: Apache-2.0
//
// One inference as the library sees it, and its form on the wire. The tensors of a request are sent
// from where they lie; those of a response are copied once, from gRPC's buffers to where they
// belong.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/container/inlined_vector.h"
#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "client/connection_pool.h"
#include "grpcpp/support/byte_buffer.h"
#include "swiglu/tensor.h"

namespace swiglu::client {

// The full path of the method.
inline constexpr char kModelInfer[] = "/inference.GRPCInferenceService/ModelInfer";

// One run of one model: its inputs, and the memory for its outputs. All tensors have one dtype and
// shape. Borrows everything but the shape.
struct Inference {
  struct Input {
    absl::string_view name;
    absl::Span<const std::byte> bytes;
  };
  struct Output {
    absl::string_view name;
    absl::Span<std::byte> bytes;
  };

  absl::string_view model;
  Dtype dtype = Dtype::kFp32;
  Shape shape;
  absl::InlinedVector<Input, 3> inputs;
  absl::InlinedVector<Output, 3> outputs;

  int64_t tensor_bytes() const { return static_cast<int64_t>(inputs.front().bytes.size()); }
  int64_t num_elements() const { return tensor_bytes() / ElementBytes(dtype); }

  // Elements [first, first + count) of every tensor, as an inference of its own, of rank 1.
  Inference Part(int64_t first, int64_t count) const;
};

// An upper bound for the size of the larger of the two messages, request and response.
int64_t LargestMessageBytes(const Inference& inference);

// An upper bound for the bytes of a message of a rank-1 inference, without those of its tensors.
inline constexpr int64_t kMaxRank1Overhead = 512;

// Appends what frames `size` bytes of a field: its tag and their number.
void AppendFrame(uint32_t tag, size_t size, std::string* out);

// The ModelInferRequest. `loan` counts its slices over the inputs.
OutgoingMessage EncodeInferRequest(const Inference& inference, Loan* loan);

// Checks that `response` is a ModelInferResponse to `inference` and copies its tensors to the
// outputs. Trusts nothing: INTERNAL, saying what is wrong, if a name, datatype, shape, size or
// number of outputs is not the one expected. The content of the outputs is then unspecified.
absl::Status DecodeInferResponse(grpc::ByteBuffer response, const Inference& inference);

}  // namespace swiglu::client
