// SPDX-License-Identifier: Apache-2.0
//
// The header through nlohmann's parser, then every claim that it makes, checked.
#include "client/files/safetensors.h"

#include <algorithm>
#include <cstdint>
#include <limits>
#include <set>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/types/optional.h"
#include "nlohmann/json.hpp"

namespace swiglu::files {
namespace {

using client::Dtype;
using client::Shape;
using client::TensorView;
using Json = nlohmann::json;

constexpr size_t kLengthBytes = 8;
// The format's own limit.
constexpr uint64_t kMaxHeaderBytes = 100'000'000;
// {tensor: {field: [number]}}: nothing in a header is nested deeper.
constexpr int kMaxDepth = 3;
constexpr char kMetadataKey[] = "__metadata__";
constexpr size_t kMaxListedNames = 8;

absl::Status Bad(absl::string_view path, absl::string_view what) {
  return absl::InvalidArgumentError(absl::StrCat(path, ": ", what));
}

std::string Quote(absl::string_view text) {
  return absl::StrCat("'", absl::CHexEscape(text.substr(0, 128)), "'");
}

// The format's name of a dtype, and the other way round.
absl::string_view SafetensorsDtype(Dtype dtype) {
  switch (dtype) {
    case Dtype::kFp16:
      return "F16";
    case Dtype::kBf16:
      return "BF16";
    case Dtype::kFp32:
      return "F32";
  }
  return "";
}

absl::optional<Dtype> ParseDtype(absl::string_view name) {
  for (const Dtype dtype : {Dtype::kFp16, Dtype::kBf16, Dtype::kFp32}) {
    if (name == SafetensorsDtype(dtype)) return dtype;
  }
  return absl::nullopt;
}

absl::Status SplitHeader(absl::string_view path, absl::Span<const std::byte> file,
                         absl::string_view& header, absl::Span<const std::byte>& data) {
  if (file.size() < kLengthBytes) {
    return Bad(path, absl::StrCat("not a .safetensors file: it has ", file.size(), " bytes"));
  }
  uint64_t length = 0;
  for (size_t k = kLengthBytes; k-- > 0;) length = length << 8 | static_cast<uint8_t>(file[k]);
  if (length > kMaxHeaderBytes) {
    return Bad(path,
               absl::StrCat("header of ", length, " bytes; expected at most ", kMaxHeaderBytes));
  }
  if (length > file.size() - kLengthBytes) {
    return Bad(path, absl::StrCat("truncated in its header: it has ", file.size() - kLengthBytes,
                                  " of ", length, " bytes"));
  }
  header = {reinterpret_cast<const char*>(file.data()) + kLengthBytes, static_cast<size_t>(length)};
  data = file.subspan(kLengthBytes + length);
  return absl::OkStatus();
}

// Parses the header. nlohmann's parser would take the last of two equal keys, and would follow any
// depth.
absl::StatusOr<Json> ParseHeader(absl::string_view path, absl::string_view header) {
  if (header.empty() || header.front() != '{') {
    return Bad(path, "not a .safetensors file: its header does not begin with '{'");
  }
  std::vector<std::set<std::string>> keys;
  std::string repeated;
  bool too_deep = false;
  const auto check = [&](int depth, Json::parse_event_t event, Json& value) {
    if (event == Json::parse_event_t::object_start) keys.emplace_back();
    if (event == Json::parse_event_t::object_end) keys.pop_back();
    if (event == Json::parse_event_t::key && !keys.back().insert(value.get<std::string>()).second) {
      repeated = value.get<std::string>();
    }
    const bool opens =
        event == Json::parse_event_t::object_start || event == Json::parse_event_t::array_start;
    if (opens && depth >= kMaxDepth) too_deep = true;
    return !too_deep;
  };
  Json json = Json::parse(header.begin(), header.end(), check, /*allow_exceptions=*/false);
  if (too_deep) return Bad(path, "malformed header: it is nested too deeply");
  if (json.is_discarded() || !json.is_object()) return Bad(path, "malformed header: no valid JSON");
  if (!repeated.empty()) {
    return Bad(path, absl::StrCat("malformed header: ", Quote(repeated), " is there twice"));
  }
  return json;
}

absl::Status CheckMetadata(absl::string_view path, const Json& metadata) {
  const bool is_fine =
      metadata.is_object() && std::all_of(metadata.begin(), metadata.end(),
                                          [](const Json& value) { return value.is_string(); });
  if (is_fine) return absl::OkStatus();
  return Bad(path, "malformed header: __metadata__ is not a map of strings");
}

// A list of integers from 0 to 2^63 - 1.
bool ReadNumbers(const Json& json, std::vector<int64_t>& numbers) {
  if (!json.is_array()) return false;
  for (const Json& number : json) {
    if (!number.is_number_unsigned()) return false;
    const uint64_t value = number.get<uint64_t>();
    if (value > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) return false;
    numbers.push_back(static_cast<int64_t>(value));
  }
  return true;
}

// The entry of one tensor. Its bytes are those that it claims, within `data`.
absl::StatusOr<SafetensorsEntry> ReadEntry(absl::string_view path, const std::string& name,
                                           const Json& json, absl::Span<const std::byte> data) {
  const auto bad = [&](absl::string_view what) {
    return Bad(path, absl::StrCat("tensor ", Quote(name), " ", what));
  };
  SafetensorsEntry entry;
  entry.name = name;
  std::vector<int64_t> offsets;
  if (!json.is_object() || json.size() != 3 || !json.contains("dtype") || !json.contains("shape") ||
      !json.contains("data_offsets")) {
    return bad("is malformed; expected dtype, shape and data_offsets");
  }
  if (!json["dtype"].is_string()) return bad("has a dtype that is no string");
  entry.dtype = json["dtype"].get<std::string>();
  if (!ReadNumbers(json["shape"], entry.shape)) {
    return bad("has a shape that is no list of dimensions");
  }
  if (!ReadNumbers(json["data_offsets"], offsets) || offsets.size() != 2 ||
      offsets[0] > offsets[1]) {
    return bad("has data_offsets that are no begin and end");
  }
  if (static_cast<uint64_t>(offsets[1]) > data.size()) {
    return bad(absl::StrCat("ends at byte ", offsets[1], " of the data, which has ", data.size()));
  }
  entry.bytes =
      data.subspan(static_cast<size_t>(offsets[0]), static_cast<size_t>(offsets[1] - offsets[0]));

  // Tensors of other dtypes are not used: that their bytes are there is enough.
  const absl::optional<Dtype> dtype = ParseDtype(entry.dtype);
  if (!dtype) return entry;
  absl::StatusOr<int64_t> needed = client::TensorBytes(name, *dtype, entry.shape);
  if (!needed.ok()) return Bad(path, needed.status().message());
  if (entry.bytes.size() != static_cast<uint64_t>(*needed)) {
    return bad(absl::StrCat("has ", entry.bytes.size(), " bytes; shape ",
                            client::FormatShape(entry.shape), " of ", entry.dtype, " needs ",
                            *needed));
  }
  return entry;
}

// The format wants the tensors' bytes side by side, from the first byte of the data to the last.
absl::Status CheckCoverage(absl::string_view path, absl::Span<const std::byte> data,
                           const std::vector<SafetensorsEntry>& entries) {
  const std::byte* expected = data.data();
  for (const SafetensorsEntry& entry : entries) {
    if (entry.bytes.data() == expected) {
      expected += entry.bytes.size();
      continue;
    }
    return Bad(path, absl::StrCat("tensor ", Quote(entry.name), " begins at byte ",
                                  entry.bytes.data() - data.data(), " of the data; expected ",
                                  expected - data.data()));
  }
  const auto num_left = data.data() + data.size() - expected;
  if (num_left == 0) return absl::OkStatus();
  return Bad(path, absl::StrCat("the last ", num_left, " bytes belong to no tensor"));
}

}  // namespace

absl::StatusOr<std::vector<SafetensorsEntry>> ParseSafetensors(absl::string_view path,
                                                               absl::Span<const std::byte> file) {
  absl::string_view header;
  absl::Span<const std::byte> data;
  absl::Status status = SplitHeader(path, file, header, data);
  if (!status.ok()) return status;
  absl::StatusOr<Json> json = ParseHeader(path, header);
  if (!json.ok()) return json.status();

  std::vector<SafetensorsEntry> entries;
  for (const auto& [name, value] : json->items()) {
    if (name == kMetadataKey) {
      status = CheckMetadata(path, value);
      if (!status.ok()) return status;
      continue;
    }
    absl::StatusOr<SafetensorsEntry> entry = ReadEntry(path, name, value, data);
    if (!entry.ok()) return entry.status();
    entries.push_back(*std::move(entry));
  }
  // An empty tensor may share its place with the one after it.
  std::stable_sort(entries.begin(), entries.end(), [](const auto& a, const auto& b) {
    return std::make_pair(a.bytes.data(), a.bytes.size()) <
           std::make_pair(b.bytes.data(), b.bytes.size());
  });
  status = CheckCoverage(path, data, entries);
  if (!status.ok()) return status;
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
    return Bad(path, absl::StrCat("it holds ", entries->size(), " tensors (", listed,
                                  "); name one as FILE:TENSOR"));
  }
  const auto found = name.empty()
                         ? entries->begin()
                         : std::find_if(entries->begin(), entries->end(),
                                        [&](const auto& entry) { return entry.name == name; });
  if (found == entries->end()) {
    return absl::NotFoundError(
        absl::StrCat(path, ": no tensor ", Quote(name), "; it holds ", listed));
  }
  const absl::optional<Dtype> dtype = ParseDtype(found->dtype);
  if (!dtype) {
    return Bad(path, absl::StrCat("tensor ", Quote(found->name), " is ", Quote(found->dtype),
                                  "; expected F16, BF16 or F32"));
  }
  return TensorView{*dtype, std::move(found->shape), found->bytes};
}

std::string SafetensorsHeader(absl::string_view name, Dtype dtype, absl::Span<const int64_t> shape,
                              int64_t size_bytes) {
  nlohmann::ordered_json entry;
  entry["dtype"] = std::string(SafetensorsDtype(dtype));
  entry["shape"] = std::vector<int64_t>(shape.begin(), shape.end());
  entry["data_offsets"] = {0, size_bytes};
  nlohmann::ordered_json json;
  json[std::string(name)] = std::move(entry);
  std::string text = json.dump();
  // Spaces align the data, as the format recommends.
  text.resize((text.size() + kLengthBytes - 1) / kLengthBytes * kLengthBytes, ' ');
  std::string header;
  for (size_t k = 0; k < kLengthBytes; ++k) {
    header.push_back(static_cast<char>(text.size() >> (8 * k) & 0xFF));
  }
  return header + text;
}

}  // namespace swiglu::files
