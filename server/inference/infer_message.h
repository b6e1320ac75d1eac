// SPDX-License-Identifier: Apache-2.0
//
// Takes the slices of a ModelInferRequest apart. Tensors stay where they lie. Everything else is
// parsed, and refused if it is not small. This is the wire format only; infer_decoder.h has the
// rules of the data.
#pragma once

#include <cstddef>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "grpcpp/support/slice.h"
#include "proto/inference.pb.h"
#include "server/inference/slice_reader.h"

namespace swiglu::server {

// The most bytes that a request may have beside its tensors: names, shapes, parameters. A parsed
// message takes up to a hundred times its own size, and this memory is not charged to the budget.
inline constexpr size_t kMaxEnvelopeBytes = size_t{64} << 10;

// A tensor's bytes, still in their slices.
struct TensorBytes {
  SliceReader begin;
  size_t size_bytes;
};

// A message that was taken apart. It is known to be a protobuf of that type; nothing else is
// checked.
struct InferMessage {
  // Everything but `raw` and `typed`.
  inference::ModelInferRequest envelope;
  // The entries of raw_input_contents.
  std::vector<TensorBytes> raw;
  // For each input, its fp32_contents if they are one packed run. Every client sends them like
  // this. Such a run has the same bytes as raw contents. Otherwise the entry has size 0, and the
  // values, if any, are in the envelope.
  std::vector<TensorBytes> typed;
  // The envelope was short and laid out as usual.
  bool is_plain = true;

  // Empties the message. Keeps the memory for the next message, unless this memory may be large.
  void Clear();
};

// Takes the message apart. Fields may come in any order. Clears `message` first; afterwards it
// refers to `slices`. Errors: INVALID_ARGUMENT, "malformed ModelInferRequest" and where;
// RESOURCE_EXHAUSTED past kMaxEnvelopeBytes. After an error `message` must not be used.
absl::Status ParseInferMessage(absl::Span<const grpc::Slice> slices, InferMessage& message);

}  // namespace swiglu::server
