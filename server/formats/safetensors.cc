// SPDX-License-Identifier: Apache-2.0
//
// Reads the header with nlohmann's event parser, then checks every claim of the header. The cost
// grows with the length of the header and with sorting its tensors, not with the tensors' bytes.
#include "server/formats/safetensors.h"

#include <algorithm>
#include <limits>
#include <optional>
#include <tuple>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "nlohmann/json.hpp"

namespace swiglu::server {
namespace {

using Json = nlohmann::json;

// The fields that the format defines, {tensor: {field: [number]}}, have three levels. Other fields
// may have more. The reference implementation has this limit, too.
constexpr int kMaxDepth = 127;
constexpr char kMetadataKey[] = "__metadata__";
// Error messages show at most this much of a name and of a shape.
constexpr size_t kMaxShownBytes = 128;
constexpr size_t kMaxShownDims = 16;

absl::Status Bad(absl::string_view path, absl::string_view what) {
  return absl::InvalidArgumentError(absl::StrCat(path, ": ", what));
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
  std::optional<std::string> dtype;  // none if it is no string
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
    return Bad(path, absl::StrCat("malformed header: ", QuotedTensorName(reader.repeated),
                                  " is there twice"));
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
  return Bad(path, absl::StrCat("malformed header: ", QuotedTensorName(*found), " is there twice"));
}

// The size of an element of the dtypes whose tensors' sizes are checked.
std::optional<int64_t> ElementBytesOf(absl::string_view dtype) {
  if (dtype == "F16" || dtype == "BF16") return 2;
  if (dtype == "F32") return 4;
  return std::nullopt;
}

// The size of a tensor in bytes. nullopt if it exceeds 2^63 - 1.
std::optional<int64_t> TensorBytesOf(int64_t element_bytes, absl::Span<const int64_t> shape) {
  if (std::find(shape.begin(), shape.end(), 0) != shape.end()) return 0;
  int64_t bytes = element_bytes;
  for (const int64_t dim : shape) {
    if (__builtin_mul_overflow(bytes, dim, &bytes)) return std::nullopt;
  }
  return bytes;
}

// Checks that a tensor has as many bytes as its dtype and shape need, if its dtype is known here.
absl::Status CheckSize(absl::string_view path, const SafetensorsTensor& tensor) {
  const std::optional<int64_t> element_bytes = ElementBytesOf(tensor.dtype);
  if (!element_bytes) return absl::OkStatus();
  const std::optional<int64_t> needed = TensorBytesOf(*element_bytes, tensor.shape);
  if (!needed) {
    return Bad(path, absl::StrCat("shape of ", QuotedTensorName(tensor.name),
                                  " is too large: ", ShownShape(tensor.shape)));
  }
  if (tensor.size_bytes() == static_cast<uint64_t>(*needed)) return absl::OkStatus();
  return Bad(path, absl::StrCat("tensor ", QuotedTensorName(tensor.name), " has ",
                                tensor.size_bytes(), " bytes; shape ", ShownShape(tensor.shape),
                                " of ", tensor.dtype, " needs ", *needed));
}

// Checks the entry of one tensor.
absl::StatusOr<SafetensorsTensor> CheckEntry(absl::string_view path, RawEntry raw,
                                             uint64_t data_bytes) {
  const auto bad = [&](absl::string_view what) {
    return Bad(path, absl::StrCat("tensor ", QuotedTensorName(raw.name), " ", what));
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
  const auto begin = static_cast<uint64_t>(offsets[0]);
  const auto end = static_cast<uint64_t>(offsets[1]);
  if (end > data_bytes) {
    return bad(absl::StrCat("ends at byte ", end, " of the data, which has ", data_bytes));
  }
  SafetensorsTensor tensor{std::move(raw.name), *std::move(raw.dtype), std::move(raw.shape.numbers),
                           begin, end};
  absl::Status status = CheckSize(path, tensor);
  if (!status.ok()) return status;
  return tensor;
}

// The tensors' bytes must fill the data, from the first byte to the last, without gaps.
absl::Status CheckCoverage(absl::string_view path, uint64_t data_bytes,
                           const std::vector<SafetensorsTensor>& tensors) {
  uint64_t expected = 0;
  for (const SafetensorsTensor& tensor : tensors) {
    if (tensor.begin != expected) {
      return Bad(path, absl::StrCat("tensor ", QuotedTensorName(tensor.name), " begins at byte ",
                                    tensor.begin, " of the data; expected ", expected));
    }
    expected = tensor.end;
  }
  if (expected == data_bytes) return absl::OkStatus();
  return Bad(path, absl::StrCat("the last ", data_bytes - expected, " bytes belong to no tensor"));
}

}  // namespace

absl::StatusOr<uint64_t> SafetensorsHeaderBytes(absl::string_view path,
                                                absl::Span<const std::byte> first_bytes,
                                                uint64_t file_bytes) {
  if (first_bytes.size() < kSafetensorsLengthBytes || file_bytes < kSafetensorsLengthBytes) {
    return Bad(path, absl::StrCat("not a .safetensors file: it has ", file_bytes, " bytes"));
  }
  uint64_t length = 0;
  for (size_t k = kSafetensorsLengthBytes; k-- > 0;) {
    length = length << 8 | static_cast<uint8_t>(first_bytes[k]);
  }
  if (length > kMaxSafetensorsHeaderBytes) {
    return Bad(path, absl::StrCat("header of ", length, " bytes; expected at most ",
                                  kMaxSafetensorsHeaderBytes));
  }
  const uint64_t rest_bytes = file_bytes - kSafetensorsLengthBytes;
  if (length > rest_bytes) {
    return Bad(path, absl::StrCat("truncated in its header: it has ", rest_bytes, " of ", length,
                                  " bytes"));
  }
  return length;
}

absl::StatusOr<std::vector<SafetensorsTensor>> ParseSafetensorsHeader(absl::string_view path,
                                                                      absl::string_view header,
                                                                      uint64_t data_bytes) {
  absl::StatusOr<std::vector<RawEntry>> raw_entries = ReadHeader(path, header);
  if (!raw_entries.ok()) return raw_entries.status();
  absl::Status status = CheckNames(path, *raw_entries);
  if (!status.ok()) return status;

  std::vector<SafetensorsTensor> tensors;
  tensors.reserve(raw_entries->size());
  for (RawEntry& raw : *raw_entries) {
    absl::StatusOr<SafetensorsTensor> tensor = CheckEntry(path, std::move(raw), data_bytes);
    if (!tensor.ok()) return tensor.status();
    tensors.push_back(*std::move(tensor));
  }
  // An empty tensor may begin at the same byte as the next tensor.
  std::stable_sort(tensors.begin(), tensors.end(), [](const auto& a, const auto& b) {
    return std::tie(a.begin, a.end) < std::tie(b.begin, b.end);
  });
  status = CheckCoverage(path, data_bytes, tensors);
  if (!status.ok()) return status;
  return tensors;
}

std::string QuotedTensorName(absl::string_view name) {
  return absl::StrCat("'", absl::CHexEscape(name.substr(0, kMaxShownBytes)), "'");
}

std::string ShownShape(absl::Span<const int64_t> shape) {
  if (shape.size() <= kMaxShownDims) return absl::StrCat("[", absl::StrJoin(shape, ","), "]");
  return absl::StrCat("[", absl::StrJoin(shape.subspan(0, kMaxShownDims), ","), ",... (",
                      shape.size(), " dims)]");
}

}  // namespace swiglu::server
