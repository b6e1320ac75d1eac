// SPDX-License-Identifier: Apache-2.0
//
// The .safetensors files of a model: which tensors there are, and where their bytes lie. Knows
// nothing about MLPs.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "server/formats/safetensors.h"
#include "server/formats/safetensors_index.h"
#include "server/weights/weights_file.h"

namespace swiglu::server {

// A tensor, and where it lies.
struct PlacedTensor {
  const WeightsFile* file = nullptr;
  uint64_t offset = 0;  // of its first byte, from the beginning of the file
  SafetensorsTensor tensor;
};

// Not thread-safe. Each error is a sentence that begins with the path of the file at fault.
class ModelFiles {
 public:
  // Opens the model at `path`, which is one of these:
  // - a file whose name ends with .safetensors
  // - a folder with model.safetensors.index.json
  // - a folder without that file, but with model.safetensors
  // Reads the index, or the header of the single file. Blocks, but never waits for another process.
  // Fails like WeightsFile::Open, ParseSafetensorsHeader or ParseSafetensorsIndex. INVALID_ARGUMENT
  // also if a file has another name. NOT_FOUND also if a folder has neither of these files.
  static absl::StatusOr<std::unique_ptr<ModelFiles>> Open(const std::string& path);

  ModelFiles(const ModelFiles&) = delete;
  ModelFiles& operator=(const ModelFiles&) = delete;

  // The path of the index, or of the single file.
  const std::string& path() const { return path_; }
  // The names of all tensors, each once.
  std::vector<absl::string_view> TensorNames() const;

  // Finds the tensors `names`. Opens each file that has one of them, and reads its header. At most
  // one header is in memory at a time. Files that have none of these tensors need not exist. Fails
  // like Open; INVALID_ARGUMENT also if a tensor is not in the file that the index names.
  // REQUIRES: all `names` are in TensorNames().
  absl::Status Place(absl::Span<const absl::string_view> names);

  // REQUIRES: Place has found the tensor `name`.
  const PlacedTensor& place(absl::string_view name) const { return places_.at(name); }

  // Gives the open files to the caller. They are where the tensors were placed.
  std::vector<std::unique_ptr<WeightsFile>> TakeFiles() { return std::move(files_); }

 private:
  ModelFiles() = default;

  absl::Status OpenFile(const std::string& path);
  absl::Status OpenIndex(std::unique_ptr<WeightsFile> index, const std::string& folder);
  // Finds some tensors of the index in the file that it names for them.
  absl::Status PlaceInFile(absl::string_view file, absl::Span<const absl::string_view> names);

  std::string path_;
  std::string folder_;                  // of the index
  std::vector<IndexedTensor> indexed_;  // in the order of their names; empty without an index
  std::vector<std::unique_ptr<WeightsFile>> files_;  // all that are open
  // Those that were found. Without an index, all.
  absl::flat_hash_map<std::string, PlacedTensor> places_;
};

}  // namespace swiglu::server
