// SPDX-License-Identifier: Apache-2.0
//
// The cursor's moves. See the header.
#include "server/rpc/slice_reader.h"

#include <algorithm>
#include <cstring>

namespace swiglu::server {

SliceReader::SliceReader(absl::Span<const grpc::Slice> slices) : slices_(slices) {
  for (const grpc::Slice& slice : slices_) remaining_ += slice.size();
}

bool SliceReader::ReadVarint(uint64_t* value) {
  uint64_t result = 0;
  for (int shift = 0; shift < 70; shift += 7) {
    if (remaining_ == 0) return false;
    std::byte byte;
    Copy(&byte, 1);
    const uint64_t bits = std::to_integer<uint64_t>(byte);
    // The tenth byte has room for one bit.
    if (shift == 63 && bits > 1) return false;
    result |= (bits & 0x7F) << shift;
    if ((bits & 0x80) == 0) {
      *value = result;
      return true;
    }
  }
  return false;
}

bool SliceReader::Skip(size_t size) {
  if (size > remaining_) return false;
  ForEachStretch(size, [](const uint8_t*, size_t) {});
  return true;
}

void SliceReader::Copy(std::byte* target, size_t size) {
  ForEachStretch(size, [&target](const uint8_t* bytes, size_t count) {
    std::memcpy(target, bytes, count);
    target += count;
  });
}

void SliceReader::Append(std::string* target, size_t size) {
  ForEachStretch(size, [target](const uint8_t* bytes, size_t count) {
    target->append(reinterpret_cast<const char*>(bytes), count);
  });
}

template <typename Use>
void SliceReader::ForEachStretch(size_t size, Use use) {
  while (size > 0) {
    const grpc::Slice& slice = slices_[slice_];
    const size_t count = std::min(size, slice.size() - offset_);
    if (count > 0) use(slice.begin() + offset_, count);
    offset_ += count;
    position_ += count;
    remaining_ -= count;
    size -= count;
    if (offset_ == slice.size() && slice_ + 1 < slices_.size()) {
      ++slice_;
      offset_ = 0;
    }
  }
}

}  // namespace swiglu::server
