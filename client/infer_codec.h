// SPDX-License-Identifier: Apache-2.0
//
// The encoding of an inference. A request's tensors are sent from the caller's memory without a
// copy. A response's tensors are copied once, from gRPC's buffers to the outputs.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "client/outgoing_message.h"
#include "grpcpp/support/byte_buffer.h"
#include "swiglu/inference.h"

namespace swiglu::client {

// The full paths of the methods.
inline constexpr char kModelInfer[] = "/inference.GRPCInferenceService/ModelInfer";
inline constexpr char kModelStreamInfer[] = "/inference.GRPCInferenceService/ModelStreamInfer";

// The number of tensors in the request or in the response, whichever number is greater. Tensors in
// regions do not count.
int64_t NumCarried(const Inference& inference);

// The bytes of the tensors that the request carries, or the response, whichever are more.
int64_t CarriedBytes(const Inference& inference);

// An upper bound for the sizes, in bytes, of the request and of the response.
int64_t LargestMessageBytes(const Inference& inference);

// An upper bound for the bytes that a message has in addition to the bytes of its tensors. It holds
// for the messages of every `inference.Part`, because the shape of a part has rank 1 or 2.
int64_t MaxPartOverhead(const Inference& inference);

// Appends what precedes the `size` bytes of a field: the field's tag and `size`.
void AppendFrame(uint32_t tag, size_t size, std::string* out);

// Whether both messages certainly have at most so many bytes. Quick: it encodes nothing.
bool FitsInto(const Inference& inference, int64_t most_bytes);

// What a request says about itself. The defaults say nothing.
struct RequestFields {
  absl::string_view id = "";
  uint64_t priority = 0;
};

// The ModelInferRequest. `loan` counts its slices over the inputs.
OutgoingMessage EncodeInferRequest(const Inference& inference, const RequestFields& fields,
                                   Loan* loan);

// Checks that `response` is a ModelInferResponse to `inference`, and copies its tensors to the
// outputs. Returns the parameter `weights_sha256` of the response, which is empty if the model has
// no weights. INTERNAL, with what is wrong in the message, if a name, a datatype, a shape, a size
// or the number of outputs is not the expected one, or if the response of an MLP lacks that
// parameter. The content of the outputs is then unspecified.
absl::StatusOr<std::string> DecodeInferResponse(grpc::ByteBuffer response,
                                                const Inference& inference);

// The same for a ModelStreamInferResponse. UNAVAILABLE, and the outputs are untouched, if it has an
// error or anything else beside a ModelInferResponse. INTERNAL, too, if it has an id other than
// `id`, that of the request: it answers another message.
absl::StatusOr<std::string> DecodeStreamResponse(grpc::ByteBuffer response,
                                                 const Inference& inference, absl::string_view id);

}  // namespace swiglu::client
