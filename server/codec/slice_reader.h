// SPDX-License-Identifier: Apache-2.0
//
// A bounds-checked cursor over the slices of one gRPC message. Reads protobuf's wire primitives and
// copies byte ranges; never looks past the end. Pure: no I/O, no ownership.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/types/span.h"
#include "grpcpp/support/slice.h"

namespace swiglu::server {

// A position in a list of slices. Cheap to copy; a copy keeps its own position.
class SliceReader {
 public:
  // `slices` must outlive the reader and all of its copies.
  explicit SliceReader(absl::Span<const grpc::Slice> slices = {});

  // Bytes consumed so far, and bytes left.
  size_t position() const { return position_; }
  size_t remaining() const { return remaining_; }

  // Reads one base-128 varint that fits into `value`. A varint of 64 bits has at most ten bytes. A
  // varint of 32 bits has at most five; protobuf's tags and lengths are of this kind. Returns false
  // if there is none; then the position is unspecified.
  bool ReadVarint(uint64_t* value) { return ReadVarintAs(value); }
  bool ReadVarint(uint32_t* value) { return ReadVarintAs(value); }

  // Moves on by `size` bytes. Returns false, and does not move, if fewer bytes are left.
  bool Skip(size_t size);

  // Copies the next `size` bytes to `target` and moves on. REQUIRES: size <= remaining().
  void Copy(std::byte* target, size_t size);

  // Appends the next `size` bytes to `target` and moves on. REQUIRES: size <= remaining().
  void Append(std::string* target, size_t size);

 private:
  template <typename T>
  bool ReadVarintAs(T* value);

  // Moves past the next `size` bytes, and calls `use(pointer, count)` for each contiguous stretch.
  template <typename Use>
  void ForEachStretch(size_t size, Use use);

  absl::Span<const grpc::Slice> slices_;
  size_t slice_ = 0;   // index of the current slice
  size_t offset_ = 0;  // within that slice; == its size only at the very end
  size_t position_ = 0;
  size_t remaining_ = 0;
};

}  // namespace swiglu::server
