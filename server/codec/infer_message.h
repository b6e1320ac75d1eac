// SPDX-License-Identifier: Apache-2.0
//
// Splits a ModelInferRequest into its tensors and its envelope. The tensors stay in the slices. The
// envelope is parsed, or refused if it is large. This file knows only the wire format;
// infer_decoder.h has the rules for the data.
#pragma once

#include <cstddef>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "grpcpp/support/slice.h"
#include "proto/inference.pb.h"
#include "server/codec/slice_reader.h"

namespace swiglu::server {

// The most bytes that an envelope may have: names, shapes, parameters. Once parsed, it takes up to
// a hundred times as much memory, which is not charged to the budget.
inline constexpr size_t kMaxEnvelopeBytes = size_t{64} << 10;

// A tensor's bytes, still in their slices.
struct TensorBytes {
  SliceReader begin;
  size_t size_bytes;
};

// A message that was taken apart. It is a valid protobuf of its type. Nothing else has been
// checked.
struct InferMessage {
  // Everything but `raw` and `typed`.
  inference::ModelInferRequest envelope;
  // The entries of raw_input_contents.
  std::vector<TensorBytes> raw;
  // One entry for each input. If the input's fp32_contents are one packed run, as every client
  // sends them, the entry has this run. Its bytes are the same as those of raw contents. Otherwise
  // the entry has size 0, and the values, if any, are in the envelope.
  std::vector<TensorBytes> typed;
  // The envelope was short and laid out as usual.
  bool is_plain = true;

  // Empties the message. Keeps the memory for the next message, unless this memory may be large.
  void Clear();
};

// Takes the message in `slices` apart. Fields may be in any order. Clears `message` first.
// Afterwards, `message` refers to `slices`. Errors: INVALID_ARGUMENT, "malformed ModelInferRequest"
// and the place; RESOURCE_EXHAUSTED if the envelope is larger than kMaxEnvelopeBytes. After an
// error, `message` must not be used.
absl::Status ParseInferMessage(absl::Span<const grpc::Slice> slices, InferMessage& message);

}  // namespace swiglu::server
