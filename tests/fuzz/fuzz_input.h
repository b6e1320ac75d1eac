// SPDX-License-Identifier: Apache-2.0
//
// What a fuzzer's bytes mean: a message, and where it is cut into slices. The first byte says, in
// its low four bits, how many sizes follow; each is one byte; the rest is the message. Its slices
// have those sizes, the first again after the last. Without a size above 0 it is one slice.
#pragma once

#include <algorithm>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "grpcpp/support/slice.h"

namespace swiglu::server {

struct FuzzInput {
  std::string message;
  std::vector<grpc::Slice> slices;
};

// A slice with memory of its own, exactly as large as `bytes`: a sanitizer sees every step outside.
inline grpc::Slice ExactSlice(absl::string_view bytes) {
  auto* copy = new char[bytes.size()];
  std::copy(bytes.begin(), bytes.end(), copy);
  return grpc::Slice(copy, bytes.size(), [](void* memory) { delete[] static_cast<char*>(memory); });
}

inline FuzzInput ReadFuzzInput(absl::string_view bytes) {
  FuzzInput input;
  if (bytes.empty()) return input;
  const size_t num_sizes = std::min<size_t>(bytes[0] & 0xF, bytes.size() - 1);
  const absl::string_view sizes = bytes.substr(1, num_sizes);
  input.message = std::string(bytes.substr(1 + num_sizes));
  absl::string_view rest = input.message;
  const bool cut = sizes.find_first_not_of('\0') != absl::string_view::npos;
  for (size_t i = 0; !rest.empty(); ++i) {
    const size_t size = cut ? static_cast<unsigned char>(sizes[i % num_sizes]) : rest.size();
    input.slices.push_back(ExactSlice(rest.substr(0, size)));
    rest.remove_prefix(std::min(size, rest.size()));
  }
  return input;
}

// The bytes that ReadFuzzInput reads as `message` in slices of `slice_sizes`, at most 15 characters
// that stand for their values.
inline std::string WriteFuzzInput(absl::string_view slice_sizes, absl::string_view message) {
  std::string bytes(1, static_cast<char>(slice_sizes.size()));
  bytes.append(slice_sizes.data(), slice_sizes.size());
  bytes.append(message.data(), message.size());
  return bytes;
}

}  // namespace swiglu::server
