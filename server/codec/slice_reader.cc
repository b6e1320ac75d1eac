// SPDX-License-Identifier: Apache-2.0
//
// The cursor's moves. See the header.
#include "server/codec/slice_reader.h"

#include <algorithm>
#include <cstring>
#include <limits>

namespace swiglu::server {

SliceReader::SliceReader(absl::Span<const grpc::Slice> slices) : slices_(slices) {
  for (const grpc::Slice& slice : slices_) remaining_ += slice.size();
}

template <typename T>
bool SliceReader::ReadVarintAs(T* value) {
  constexpr int kBits = std::numeric_limits<T>::digits;
  T result = 0;
  for (int shift = 0; shift < kBits; shift += 7) {
    if (remaining_ == 0) return false;
    std::byte byte;
    Copy(&byte, 1);
    const T bits = std::to_integer<T>(byte);
    // The last byte has room for a few bits only, and none to say that more bytes follow.
    if (kBits - shift < 7 && bits >> (kBits - shift) != 0) return false;
    result |= (bits & 0x7F) << shift;
    if ((bits & 0x80) == 0) {
      *value = result;
      return true;
    }
  }
  return false;
}

template bool SliceReader::ReadVarintAs(uint64_t*);
template bool SliceReader::ReadVarintAs(uint32_t*);

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
