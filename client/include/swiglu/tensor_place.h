// SPDX-License-Identifier: Apache-2.0
//
// Where a tensor of a call is. If a tensor is in ordinary memory, a message carries its bytes. If a
// tensor is in a region of shared memory, the server itself reads or writes it there.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>

#include "absl/types/optional.h"
#include "absl/types/span.h"
#include "swiglu/tensor.h"

namespace swiglu::client {

// A stretch of a region that is registered at the server. It owns nothing: until the call has
// returned, the region must stay registered, and its memory must stay allocated. A call refuses a
// stretch that does not lie inside its region.
struct RegionPart {
  std::string region;        // the name that the region is registered under
  int64_t region_bytes = 0;  // the region's size
  int64_t offset = 0;        // where the stretch begins; a multiple of the element's size
  int64_t size_bytes = 0;    // how long it is
};

// An input of a call. Made from a `TensorView`, or from a region's part:
// `{Dtype::kFp32, {4, 1000}, region.Part(0, 16'000)}`.
struct InputTensor {
  // A tensor in ordinary memory, or in a region.
  InputTensor(const TensorView& view)  // NOLINT(google-explicit-constructor)
      : dtype(view.dtype), shape(view.shape), bytes(view.bytes) {}
  InputTensor(Dtype its_dtype, Shape its_shape, RegionPart its_part)
      : dtype(its_dtype), shape(std::move(its_shape)), part(std::move(its_part)) {}

  // How many bytes it has.
  int64_t size_bytes() const {
    return part ? part->size_bytes : static_cast<int64_t>(bytes.size());
  }

  // What the tensor is, and where.
  Dtype dtype;
  Shape shape;
  absl::Span<const std::byte> bytes;  // empty if it is in a region
  absl::optional<RegionPart> part;    // none if it is in ordinary memory
};

// Where a call writes an output, which has the inputs' dtype and shape.
struct OutputTensor {
  // A place in ordinary memory, or in a region.
  OutputTensor(absl::Span<std::byte> its_bytes)  // NOLINT(google-explicit-constructor)
      : bytes(its_bytes) {}
  OutputTensor(RegionPart its_part)  // NOLINT(google-explicit-constructor)
      : part(std::move(its_part)) {}

  // How many bytes have room.
  int64_t size_bytes() const {
    return part ? part->size_bytes : static_cast<int64_t>(bytes.size());
  }

  absl::Span<std::byte> bytes;      // empty if it is in a region
  absl::optional<RegionPart> part;  // none if it is in ordinary memory
};

// Where BackwardInto writes.
struct BackwardOutputTensors {
  OutputTensor h;
  OutputTensor df;
  OutputTensor de;
};

}  // namespace swiglu::client
