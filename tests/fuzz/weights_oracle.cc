// SPDX-License-Identifier: Apache-2.0
//
// The comparison, for a file and for an index. See the header.
#include "tests/fuzz/weights_oracle.h"

#include <algorithm>
#include <optional>
#include <set>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "nlohmann/json.hpp"
#include "server/formats/safetensors.h"
#include "server/formats/safetensors_index.h"
#include "server/weights/layer_plan.h"

namespace swiglu::server {
namespace {

using Document = nlohmann::json;

constexpr char kInputPath[] = "input";

// An input taken apart. `text` is the JSON of a file or of an index.
struct ParsedInput {
  absl::Status status;
  absl::string_view text;
  uint64_t data_bytes = 0;
  std::vector<SafetensorsTensor> tensors;
  std::vector<IndexedTensor> indexed;
  std::vector<PlannedLayer> layers;
};

std::vector<absl::string_view> NamesOf(const ParsedInput& parsed) {
  std::vector<absl::string_view> names;
  for (const SafetensorsTensor& tensor : parsed.tensors) names.push_back(tensor.name);
  for (const IndexedTensor& tensor : parsed.indexed) names.push_back(tensor.name);
  return names;
}

absl::Status ParseFile(absl::string_view file, ParsedInput& parsed) {
  const auto header_bytes = SafetensorsHeaderBytes(
      kInputPath, {reinterpret_cast<const std::byte*>(file.data()), file.size()}, file.size());
  if (!header_bytes.ok()) return header_bytes.status();
  parsed.text = file.substr(kSafetensorsLengthBytes, *header_bytes);
  parsed.data_bytes = file.size() - kSafetensorsLengthBytes - *header_bytes;
  auto tensors = ParseSafetensorsHeader(kInputPath, parsed.text, parsed.data_bytes);
  if (!tensors.ok()) return tensors.status();
  parsed.tensors = *std::move(tensors);
  return absl::OkStatus();
}

ParsedInput Parse(absl::string_view input) {
  ParsedInput parsed;
  const bool is_file = absl::StartsWith(input, absl::string_view(&kModelFileInput, 1));
  const absl::string_view rest = input.substr(std::min<size_t>(input.size(), 1));
  if (is_file) {
    parsed.status = ParseFile(rest, parsed);
  } else {
    parsed.text = rest;
    auto indexed = ParseSafetensorsIndex(kInputPath, rest);
    parsed.status = indexed.status();
    if (indexed.ok()) parsed.indexed = *std::move(indexed);
  }
  if (!parsed.status.ok()) return parsed;
  auto layers = PlanLayers(kInputPath, NamesOf(parsed), std::nullopt);
  parsed.status = layers.status();
  if (layers.ok()) parsed.layers = *std::move(layers);
  return parsed;
}

std::string CompareFile(const ParsedInput& parsed, const Document& document) {
  if (document.size() - document.count("__metadata__") != parsed.tensors.size()) {
    return "finds another number of tensors";
  }
  uint64_t end = 0;
  for (const SafetensorsTensor& tensor : parsed.tensors) {
    const Document& entry = document.at(tensor.name);
    if (entry.at("dtype") != tensor.dtype || entry.at("shape") != Document(tensor.shape) ||
        entry.at("data_offsets") != Document({tensor.begin, tensor.end})) {
      return absl::StrCat("gives another tensor ", QuotedTensorName(tensor.name));
    }
    if (tensor.begin != end || tensor.end < tensor.begin) return "leaves a gap or an overlap";
    end = tensor.end;
  }
  return end == parsed.data_bytes ? "" : "does not fill the data";
}

std::string CompareIndex(const ParsedInput& parsed, const Document& document) {
  Document map = Document::object();
  for (const IndexedTensor& tensor : parsed.indexed) {
    map[tensor.name] = tensor.file;
    if (absl::StrContains(tensor.file, "/") || tensor.file == "..") return "leaves the folder";
  }
  if (map.size() != parsed.indexed.size()) return "gives a tensor twice";
  return map == document.at("weight_map") ? "" : "gives another map";
}

std::string CompareLayers(const ParsedInput& parsed) {
  const std::vector<absl::string_view> names = NamesOf(parsed);
  const std::set<absl::string_view> known(names.begin(), names.end());
  int last = -1;
  for (const PlannedLayer& layer : parsed.layers) {
    if (layer.number <= last) return "gives layers in another order";
    last = layer.number;
    for (const std::string& name : {layer.gate, layer.up, layer.down}) {
      if (!known.contains(name)) return "makes a tensor up";
    }
  }
  return "";
}

std::string CompareError(const absl::Status& status) {
  if (!absl::IsInvalidArgument(status)) return "refuses with another code";
  if (!absl::StartsWith(status.message(), absl::StrCat(kInputPath, ": "))) {
    return "refuses without the path";
  }
  const bool is_printable = std::all_of(status.message().begin(), status.message().end(),
                                        [](char c) { return absl::ascii_isprint(c); });
  return is_printable ? "" : "refuses with characters that are not printable";
}

}  // namespace

absl::Status ParseModelInput(absl::string_view input) { return Parse(input).status; }

std::string ModelDisagreement(absl::string_view input) {
  const ParsedInput parsed = Parse(input);
  std::string difference = parsed.status.ok() ? CompareLayers(parsed) : CompareError(parsed.status);
  if (!difference.empty() || (parsed.tensors.empty() && parsed.indexed.empty())) return difference;
  const Document document =
      Document::parse(parsed.text.begin(), parsed.text.end(), nullptr, /*allow_exceptions=*/false);
  if (!document.is_object()) return "takes what is no JSON object";
  return parsed.indexed.empty() ? CompareFile(parsed, document) : CompareIndex(parsed, document);
}

}  // namespace swiglu::server
