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

// A position in a list of slices. Cheap to copy: a copy is a bookmark.
class SliceReader {
 public:
  // `slices` must outlive the reader and all of its copies.
  explicit SliceReader(absl::Span<const grpc::Slice> slices = {});

  // Bytes consumed so far, and bytes left.
  size_t position() const { return position_; }
  size_t remaining() const { return remaining_; }

  // Reads one base-128 varint that fits into `value`, of at most ten bytes for 64 bits and at most
  // five for 32 bits. Protobuf's tags and lengths have 32 bits. False, with the position
  // unspecified, if there is none.
  bool ReadVarint(uint64_t* value) { return ReadVarintAs(value); }
  bool ReadVarint(uint32_t* value) { return ReadVarintAs(value); }

  // Moves on by `size` bytes. False, and nothing moves, if fewer are left.
  bool Skip(size_t size);

  // Copies the next `size` bytes to `target` and moves on. REQUIRES: size <= remaining().
  void Copy(std::byte* target, size_t size);

  // Appends the next `size` bytes to `target` and moves on. REQUIRES: size <= remaining().
  void Append(std::string* target, size_t size);

 private:
  template <typename T>
  bool ReadVarintAs(T* value);

  // Calls `use(pointer, count)` for each stretch of the next `size` bytes and moves past them.
  template <typename Use>
  void ForEachStretch(size_t size, Use use);

  absl::Span<const grpc::Slice> slices_;
  size_t slice_ = 0;   // index of the current slice
  size_t offset_ = 0;  // within it; == its size only at the very end
  size_t position_ = 0;
  size_t remaining_ = 0;
};

}  // namespace swiglu::server
