// SPDX-License-Identifier: Apache-2.0
//
// Reads the header with nlohmann's event parser, then checks every claim of the header. The cost
// grows with the length of the header and with sorting its tensors, not with the tensors' bytes.
#include "client/files/safetensors.h"

#include <algorithm>
#include <cstdint>
#include <limits>
#include <string>
#include <utility>
#include <vector>

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
// The limit that the format sets.
constexpr uint64_t kMaxHeaderBytes = 100'000'000;
// The fields that the format defines, {tensor: {field: [number]}}, have three levels. Other fields
// may have more. The reference implementation has this limit, too.
constexpr int kMaxDepth = 127;
constexpr char kMetadataKey[] = "__metadata__";
constexpr size_t kMaxListedNames = 8;

absl::Status Bad(absl::string_view path, absl::string_view what) {
  return absl::InvalidArgumentError(absl::StrCat(path, ": ", what));
}

std::string Quote(absl::string_view text) {
  return absl::StrCat("'", absl::CHexEscape(text.substr(0, 128)), "'");
}

// The format's names of dtypes, by Dtype.
constexpr const char* kDtypeNames[] = {"F16", "BF16", "F32"};

absl::optional<Dtype> ParseDtype(absl::string_view name) {
  for (const Dtype dtype : {Dtype::kFp16, Dtype::kBf16, Dtype::kFp32}) {
    if (name == kDtypeNames[static_cast<int>(dtype)]) return dtype;
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

// A field of an entry that should be a list of numbers.
struct NumberField {
  bool is_there = false;
  bool is_good = false;  // a list of integers from 0 to 2^63 - 1, and nothing else
  std::vector<int64_t> numbers;
};

// What the header says about one tensor, not checked yet.
struct RawEntry {
  std::string name;
  bool is_object = false;
  bool has_dtype = false;
  absl::optional<std::string> dtype;  // none if it is no string
  NumberField shape;
  NumberField data_offsets;
};

// Collects the entries while nlohmann's parser reads the header. Skips fields that the format does
// not define. If a method returns false, the parse ends.
class HeaderReader {
 public:
  using number_integer_t = Json::number_integer_t;
  using number_unsigned_t = Json::number_unsigned_t;
  using number_float_t = Json::number_float_t;
  using string_t = Json::string_t;
  using binary_t = Json::binary_t;

  std::vector<RawEntry> entries;
  bool is_too_deep = false;
  bool has_bad_metadata = false;
  std::string repeated;  // the name of a field that an entry has twice

  bool null() {
    // A null is the same as no metadata.
    if (depth_ == 1 && is_metadata_) return true;
    return Other();
  }
  bool boolean(bool) { return Other(); }
  bool number_integer(number_integer_t) { return Other(); }
  bool number_float(number_float_t, const string_t&) { return Other(); }
  bool binary(binary_t&) { return Other(); }

  bool number_unsigned(number_unsigned_t value) {
    if (depth_ != 3 || list_ == nullptr) return Other();
    if (value > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) return Other();
    list_->numbers.push_back(static_cast<int64_t>(value));
    return true;
  }

  bool string(string_t& value) {
    if (depth_ != 2) return Other();
    if (!is_metadata_ && is_dtype_) entries.back().dtype = std::move(value);
    return true;
  }

  bool start_object(size_t) {
    if (depth_ == 1 && !is_metadata_) {
      entries.back().is_object = true;
    } else if (depth_ > 1) {
      Other();
    }
    return Enter();
  }

  bool start_array(size_t) {
    const bool begins_list = depth_ == 2 && !is_metadata_ && list_ != nullptr;
    begins_list ? list_->is_good = true : Other();
    return Enter();
  }

  bool end_object() { return Leave(); }
  bool end_array() { return Leave(); }

  bool key(string_t& name) {
    if (depth_ == 1) {
      is_metadata_ = name == kMetadataKey;
      if (!is_metadata_) entries.emplace_back().name = std::move(name);
    } else if (depth_ == 2 && !is_metadata_) {
      BeginField(name);
    }
    return true;
  }

  template <typename Error>
  bool parse_error(size_t, const std::string&, const Error&) {
    return false;
  }

 private:
  void BeginField(const std::string& name) {
    RawEntry& entry = entries.back();
    is_dtype_ = name == "dtype";
    list_ = name == "shape" ? &entry.shape : name == "data_offsets" ? &entry.data_offsets : nullptr;
    if (!is_dtype_ && list_ == nullptr) return;
    bool& is_there = is_dtype_ ? entry.has_dtype : list_->is_there;
    if (is_there) repeated = name;
    is_there = true;
  }

  // Handles a value of a type that does not belong in its place.
  bool Other() {
    if (is_metadata_) has_bad_metadata = true;
    if (list_ != nullptr) list_->is_good = false;
    return true;
  }

  bool Enter() {
    is_too_deep = ++depth_ > kMaxDepth;
    return !is_too_deep;
  }

  bool Leave() {
    --depth_;
    // A closing bracket ends a field at depth 2, and an entry or the metadata at depth 1.
    if (depth_ <= 2) list_ = nullptr;
    if (depth_ <= 1) is_metadata_ = false;
    return true;
  }

  int depth_ = 0;  // the number of open lists and objects
  bool is_metadata_ = false;
  bool is_dtype_ = false;
  NumberField* list_ = nullptr;  // the list of numbers being read, if any
};

absl::StatusOr<std::vector<RawEntry>> ReadHeader(absl::string_view path, absl::string_view header) {
  if (header.empty() || header.front() != '{') {
    return Bad(path, "not a .safetensors file: its header does not begin with '{'");
  }
  HeaderReader reader;
  const bool is_json = Json::sax_parse(header.begin(), header.end(), &reader);
  if (reader.is_too_deep) return Bad(path, "malformed header: it is nested too deeply");
  if (!is_json) return Bad(path, "malformed header: no valid JSON");
  if (!reader.repeated.empty()) {
    return Bad(path, absl::StrCat("malformed header: ", Quote(reader.repeated), " is there twice"));
  }
  if (reader.has_bad_metadata) {
    return Bad(path, "malformed header: __metadata__ is not a map of strings");
  }
  return std::move(reader.entries);
}

// With two tensors of the same name, it would be unclear which one is meant.
absl::Status CheckNames(absl::string_view path, const std::vector<RawEntry>& entries) {
  std::vector<absl::string_view> names;
  names.reserve(entries.size());
  for (const RawEntry& entry : entries) names.push_back(entry.name);
  std::sort(names.begin(), names.end());
  const auto found = std::adjacent_find(names.begin(), names.end());
  if (found == names.end()) return absl::OkStatus();
  return Bad(path, absl::StrCat("malformed header: ", Quote(*found), " is there twice"));
}

// Checks the entry of one tensor, and finds the tensor's bytes in `data`.
absl::StatusOr<SafetensorsEntry> CheckEntry(absl::string_view path, RawEntry raw,
                                            absl::Span<const std::byte> data) {
  const auto bad = [&](absl::string_view what) {
    return Bad(path, absl::StrCat("tensor ", Quote(raw.name), " ", what));
  };
  if (!raw.is_object || !raw.has_dtype || !raw.shape.is_there || !raw.data_offsets.is_there) {
    return bad("is malformed; expected dtype, shape and data_offsets");
  }
  if (!raw.dtype) return bad("has a dtype that is no string");
  if (!raw.shape.is_good) return bad("has a shape that is no list of dimensions");
  const std::vector<int64_t>& offsets = raw.data_offsets.numbers;
  if (!raw.data_offsets.is_good || offsets.size() != 2 || offsets[0] > offsets[1]) {
    return bad("has data_offsets that are no begin and end");
  }
  if (static_cast<uint64_t>(offsets[1]) > data.size()) {
    return bad(absl::StrCat("ends at byte ", offsets[1], " of the data, which has ", data.size()));
  }
  const auto bytes =
      data.subspan(static_cast<size_t>(offsets[0]), static_cast<size_t>(offsets[1] - offsets[0]));

  // The service does not use tensors of other dtypes, so it only checks that their bytes exist.
  if (const absl::optional<Dtype> dtype = ParseDtype(*raw.dtype)) {
    absl::StatusOr<int64_t> needed = client::TensorBytes(raw.name, *dtype, raw.shape.numbers);
    if (!needed.ok()) return Bad(path, needed.status().message());
    if (bytes.size() != static_cast<uint64_t>(*needed)) {
      return bad(absl::StrCat("has ", bytes.size(), " bytes; shape ",
                              client::FormatShape(raw.shape.numbers), " of ", *raw.dtype, " needs ",
                              *needed));
    }
  }
  return SafetensorsEntry{std::move(raw.name), *std::move(raw.dtype), std::move(raw.shape.numbers),
                          bytes};
}

// The tensors' bytes must fill the data, from the first byte to the last, without gaps.
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
  absl::StatusOr<std::vector<RawEntry>> raw_entries = ReadHeader(path, header);
  if (!raw_entries.ok()) return raw_entries.status();
  status = CheckNames(path, *raw_entries);
  if (!status.ok()) return status;

  std::vector<SafetensorsEntry> entries;
  entries.reserve(raw_entries->size());
  for (RawEntry& raw : *raw_entries) {
    absl::StatusOr<SafetensorsEntry> entry = CheckEntry(path, std::move(raw), data);
    if (!entry.ok()) return entry.status();
    entries.push_back(*std::move(entry));
  }
  // An empty tensor may begin at the same byte as the next tensor.
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
  entry["dtype"] = kDtypeNames[static_cast<int>(dtype)];
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
