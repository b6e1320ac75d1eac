// SPDX-License-Identifier: Apache-2.0
//
// Reads the index with nlohmann's event parser, then checks names and files.
#include "server/formats/safetensors_index.h"

#include <algorithm>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "nlohmann/json.hpp"
#include "server/formats/safetensors.h"

namespace swiglu::server {
namespace {

constexpr char kWeightMapKey[] = "weight_map";
// The index needs two levels. What is ignored may have more.
constexpr int kMaxIndexDepth = 127;

absl::Status BadIndex(absl::string_view path, absl::string_view what) {
  return absl::InvalidArgumentError(absl::StrCat(path, ": malformed index: ", what));
}

// Collects the entries of the weight map while nlohmann's parser reads the index. Skips all else.
// If a method returns false, the parse ends.
class IndexReader {
 public:
  using number_integer_t = nlohmann::json::number_integer_t;
  using number_unsigned_t = nlohmann::json::number_unsigned_t;
  using number_float_t = nlohmann::json::number_float_t;
  using string_t = nlohmann::json::string_t;
  using binary_t = nlohmann::json::binary_t;

  std::vector<IndexedTensor> tensors;
  int num_maps = 0;  // how often weight_map is there
  bool is_too_deep = false;
  bool has_too_many = false;
  bool has_bad_map = false;  // whether weight_map, or a value in it, has the wrong type

  bool null() { return Other(); }
  bool boolean(bool) { return Other(); }
  bool number_integer(number_integer_t) { return Other(); }
  bool number_unsigned(number_unsigned_t) { return Other(); }
  bool number_float(number_float_t, const string_t&) { return Other(); }
  bool binary(binary_t&) { return Other(); }

  bool string(string_t& value) {
    if (!is_map_ || depth_ != 2 || has_bad_map) return Other();
    tensors.back().file = std::move(value);
    return true;
  }

  bool start_object(size_t) {
    if (is_map_ && depth_ != 1) has_bad_map = true;
    return Enter();
  }

  bool start_array(size_t) {
    Other();
    return Enter();
  }

  bool end_object() { return Leave(); }
  bool end_array() { return Leave(); }

  bool key(string_t& name) {
    if (depth_ == 1) {
      is_map_ = name == kWeightMapKey;
      if (is_map_) ++num_maps;
    } else if (is_map_ && depth_ == 2) {
      has_too_many = tensors.size() == kMaxIndexedTensors;
      if (has_too_many) return false;
      tensors.emplace_back().name = std::move(name);
    }
    return true;
  }

  template <typename Error>
  bool parse_error(size_t, const std::string&, const Error&) {
    return false;
  }

 private:
  // Handles a value that is neither an object nor the file of a tensor.
  bool Other() {
    if (is_map_) has_bad_map = true;
    return true;
  }

  bool Enter() {
    is_too_deep = ++depth_ > kMaxIndexDepth;
    return !is_too_deep;
  }

  bool Leave() {
    --depth_;
    if (depth_ <= 1) is_map_ = false;
    return true;
  }

  int depth_ = 0;        // the number of open lists and objects
  bool is_map_ = false;  // whether the value being read is weight_map, or in it
};

// Whether `name` can only be a file of the folder itself.
bool IsPlainFileName(absl::string_view name) {
  return !name.empty() && name != "." && name != ".." &&
         name.find_first_of(absl::string_view("/\0", 2)) == absl::string_view::npos;
}

// REQUIRES: `tensors` are in the order of their names.
absl::Status CheckTensors(absl::string_view path, const std::vector<IndexedTensor>& tensors) {
  const auto repeated =
      std::adjacent_find(tensors.begin(), tensors.end(),
                         [](const auto& a, const auto& b) { return a.name == b.name; });
  if (repeated != tensors.end()) {
    return BadIndex(path, absl::StrCat(QuotedTensorName(repeated->name), " is there twice"));
  }
  const auto outside = std::find_if(tensors.begin(), tensors.end(), [](const auto& tensor) {
    return !IsPlainFileName(tensor.file);
  });
  if (outside == tensors.end()) return absl::OkStatus();
  return BadIndex(path, absl::StrCat("tensor ", QuotedTensorName(outside->name), " is in ",
                                     QuotedTensorName(outside->file),
                                     "; expected the name of a file in the same folder"));
}

}  // namespace

absl::StatusOr<std::vector<IndexedTensor>> ParseSafetensorsIndex(absl::string_view path,
                                                                 absl::string_view text) {
  if (text.size() > kMaxSafetensorsIndexBytes) return SafetensorsIndexTooLarge(path, text.size());
  IndexReader reader;
  const bool is_json = nlohmann::json::sax_parse(text.begin(), text.end(), &reader);
  if (reader.is_too_deep) return BadIndex(path, "it is nested too deeply");
  if (reader.has_too_many) {
    return BadIndex(path, absl::StrCat("more than ", kMaxIndexedTensors, " tensors"));
  }
  if (!is_json) return BadIndex(path, "no valid JSON");
  if (reader.num_maps == 0) return BadIndex(path, "it has no weight_map");
  if (reader.num_maps > 1) return BadIndex(path, "'weight_map' is there twice");
  if (reader.has_bad_map) return BadIndex(path, "weight_map is not a map of strings");
  std::sort(reader.tensors.begin(), reader.tensors.end(),
            [](const auto& a, const auto& b) { return a.name < b.name; });
  absl::Status status = CheckTensors(path, reader.tensors);
  if (!status.ok()) return status;
  return std::move(reader.tensors);
}

absl::Status SafetensorsIndexTooLarge(absl::string_view path, uint64_t size_bytes) {
  return absl::InvalidArgumentError(absl::StrCat(
      path, ": index of ", size_bytes, " bytes; expected at most ", kMaxSafetensorsIndexBytes));
}

}  // namespace swiglu::server
