// SPDX-License-Identifier: Apache-2.0
//
// Turns results in a slab into the slices of a ModelInferResponse: small encoded pieces, and
// between them the tensors. gRPC sends the tensors from the slab without a copy.
#pragma once

#include <array>
#include <cstddef>
#include <memory>
#include <string>

#include "absl/container/inlined_vector.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "grpcpp/support/byte_buffer.h"
#include "grpcpp/support/slice.h"
#include "server/codec/infer_decoder.h"

namespace swiglu::server {

// A message as a list of slices, with their total size.
struct EncodedMessage {
  // The inline capacity is the number of slices of a forward response with one piece.
  absl::InlinedVector<grpc::Slice, 2> slices;
  size_t size_bytes = 0;

  void Append(grpc::Slice slice) {
    size_bytes += slice.size();
    slices.push_back(std::move(slice));
  }
  grpc::ByteBuffer ToByteBuffer() const { return {slices.data(), slices.size()}; }
};

// The fields of a request that its answer needs.
struct InferIdentity {
  std::string model_name;
  std::string id;
  // On a stream: whether the caller wants a mark on the last answer to this request.
  bool wants_final_mark = false;
};

// A slice over `size_bytes` bytes at `data`. It holds a reference to `owner`. The thread that
// releases the slice last drops this reference.
grpc::Slice SharedSlice(std::shared_ptr<const void> owner, const std::byte* data,
                        size_t size_bytes);

// A piece of each output: `size_bytes` bytes at `outputs[k]`, by the outputs' numbers. Gradients
// are never cut: their first piece is the whole gradient.
struct OutputPiece {
  std::array<const std::byte*, kMaxOutputs> outputs{};
  size_t size_bytes = 0;
};

// The ModelInferResponse of a finished request: first the metadata of each requested output, then
// the bytes of each output. If the model has weights, the parameter `weights_sha256` says which
// have computed it. The bytes of an output are those of all `pieces`, in order. The message has no
// bytes of an output in a region. Every tensor slice shares `owner`.
EncodedMessage EncodeInferResponse(const InferPlan& plan, const std::string& id,
                                   absl::Span<const OutputPiece> pieces,
                                   const std::shared_ptr<const void>& owner);

// The size of what `EncodeInferResponse` returns. `ResponseTensorBytes` counts only the tensors, at
// almost no cost. `ResponseBytes` counts everything. For each output in a region, its result is a
// few bytes too large.
int64_t ResponseTensorBytes(const InferPlan& plan);
int64_t ResponseBytes(const InferPlan& plan, const std::string& id);

// A ModelStreamInferResponse around `response`, the encoded ModelInferResponse to the request with
// `identity`. If the caller wants a mark, the parameter `triton_final_response` marks the response
// as the last.
EncodedMessage WrapForStream(EncodedMessage response, const InferIdentity& identity);

// A ModelStreamInferResponse that reports an error about the request with `identity`. Long names
// and ids are cut as in all error messages.
EncodedMessage EncodeStreamError(const InferIdentity& identity, absl::string_view error_message);

}  // namespace swiglu::server
