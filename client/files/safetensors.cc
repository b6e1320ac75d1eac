// SPDX-License-Identifier: Apache-2.0
//
// Cuts a file into header and data, and lets server/formats parse the header. Turns the tensors
// that the header lists into views of the file's bytes.
#include "client/files/safetensors.h"

#include <algorithm>
#include <cstdint>
#include <limits>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/types/optional.h"
#include "nlohmann/json.hpp"
#include "server/formats/safetensors.h"

namespace swiglu::files {
namespace {

using client::Dtype;
using client::TensorView;

constexpr size_t kSafetensorsLength = server::kSafetensorsLengthBytes;
constexpr size_t kMaxListedNames = 8;

absl::Status BadSafetensors(absl::string_view path, absl::string_view what) {
  return absl::InvalidArgumentError(absl::StrCat(path, ": ", what));
}

// The format's names of dtypes, by Dtype.
constexpr const char* kDtypeNames[] = {"F16", "BF16", "F32"};

absl::optional<Dtype> ParseDtype(absl::string_view name) {
  for (const Dtype dtype : {Dtype::kFp16, Dtype::kBf16, Dtype::kFp32}) {
    if (name == kDtypeNames[static_cast<int>(dtype)]) return dtype;
  }
  return absl::nullopt;
}

}  // namespace

bool IsSafetensors(absl::Span<const std::byte> bytes) {
  return bytes.size() > kSafetensorsLength && bytes[kSafetensorsLength] == std::byte{'{'} &&
         server::SafetensorsHeaderBytes("", bytes, std::numeric_limits<int64_t>::max()).ok();
}

absl::StatusOr<std::vector<SafetensorsEntry>> ParseSafetensors(absl::string_view path,
                                                               absl::Span<const std::byte> file) {
  const absl::StatusOr<uint64_t> header_bytes =
      server::SafetensorsHeaderBytes(path, file, file.size());
  if (!header_bytes.ok()) return header_bytes.status();
  const absl::string_view header(reinterpret_cast<const char*>(file.data()) + kSafetensorsLength,
                                 *header_bytes);
  const absl::Span<const std::byte> data = file.subspan(kSafetensorsLength + *header_bytes);
  absl::StatusOr<std::vector<server::SafetensorsTensor>> tensors =
      server::ParseSafetensorsHeader(path, header, data.size());
  if (!tensors.ok()) return tensors.status();
  std::vector<SafetensorsEntry> entries;
  entries.reserve(tensors->size());
  for (server::SafetensorsTensor& tensor : *tensors) {
    entries.push_back({std::move(tensor.name), std::move(tensor.dtype), std::move(tensor.shape),
                       data.subspan(tensor.begin, tensor.size_bytes())});
  }
  return entries;
}

absl::StatusOr<TensorView> FindSafetensor(absl::string_view path, absl::Span<const std::byte> file,
                                          absl::string_view name) {
  absl::StatusOr<std::vector<SafetensorsEntry>> entries = ParseSafetensors(path, file);
  if (!entries.ok()) return entries.status();
  std::vector<std::string> names;
  for (const SafetensorsEntry& entry : *entries) {
    if (names.size() == kMaxListedNames) {
      names.push_back("...");
      break;
    }
    names.push_back(absl::CHexEscape(entry.name));
  }
  const std::string listed = absl::StrJoin(names, ", ");
  if (name.empty() && entries->size() != 1) {
    return BadSafetensors(path, absl::StrCat("it holds ", entries->size(), " tensors (", listed,
                                             "); name one as FILE:TENSOR"));
  }
  const auto found = name.empty()
                         ? entries->begin()
                         : std::find_if(entries->begin(), entries->end(),
                                        [&](const auto& entry) { return entry.name == name; });
  if (found == entries->end()) {
    return absl::NotFoundError(
        absl::StrCat(path, ": no tensor ", server::QuotedTensorName(name), "; it holds ", listed));
  }
  const absl::optional<Dtype> dtype = ParseDtype(found->dtype);
  if (!dtype) {
    return BadSafetensors(
        path, absl::StrCat("tensor ", server::QuotedTensorName(found->name), " is ",
                           server::QuotedTensorName(found->dtype), "; expected F16, BF16 or F32"));
  }
  return TensorView{*dtype, std::move(found->shape), found->bytes};
}

std::string SafetensorsHeader(absl::Span<const NamedTensor> tensors) {
  nlohmann::ordered_json json;
  size_t begin = 0;
  for (const auto& [name, tensor] : tensors) {
    nlohmann::ordered_json& entry = json[std::string(name)];
    entry["dtype"] = kDtypeNames[static_cast<int>(tensor.dtype)];
    entry["shape"] = tensor.shape;
    entry["data_offsets"] = {begin, begin + tensor.bytes.size()};
    begin += tensor.bytes.size();
  }
  std::string text = json.dump();
  // Spaces align the data, as the format recommends.
  text.resize((text.size() + kSafetensorsLength - 1) / kSafetensorsLength * kSafetensorsLength,
              ' ');
  std::string header;
  for (size_t k = 0; k < kSafetensorsLength; ++k) {
    header.push_back(static_cast<char>(text.size() >> (8 * k) & 0xFF));
  }
  return header + text;
}

}  // namespace swiglu::files
