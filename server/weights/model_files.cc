// SPDX-License-Identifier: Apache-2.0
//
// Finds the files of a model, and reads headers and the index. See the header.
#include "server/weights/model_files.h"

#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <map>
#include <span>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

namespace swiglu::server {
namespace {

constexpr char kIndexName[] = "model.safetensors.index.json";
constexpr char kSingleName[] = "model.safetensors";
constexpr char kExtension[] = ".safetensors";

bool IsFolder(const std::string& path) {
  struct stat info;
  return ::stat(path.c_str(), &info) == 0 && S_ISDIR(info.st_mode);
}

std::string InFolder(absl::string_view folder, absl::string_view name) {
  return absl::StrCat(folder, absl::EndsWith(folder, "/") ? "" : "/", name);
}

// Reads `size_bytes` bytes as text.
absl::StatusOr<std::string> ReadText(const WeightsFile& file, uint64_t offset,
                                     uint64_t size_bytes) {
  std::string text(size_bytes, '\0');
  absl::Status status = file.Read(offset, std::as_writable_bytes(std::span(text)));
  if (!status.ok()) return status;
  return text;
}

struct Header {
  uint64_t data_offset = 0;  // where the data begins in the file
  std::vector<SafetensorsTensor> tensors;
};

absl::StatusOr<Header> ReadFileHeader(const WeightsFile& file) {
  std::array<std::byte, kSafetensorsLengthBytes> bytes;
  const std::span<std::byte> first_bytes =
      std::span(bytes).first(std::min<uint64_t>(bytes.size(), file.size_bytes()));
  absl::Status status = file.Read(0, first_bytes);
  if (!status.ok()) return status;
  const absl::StatusOr<uint64_t> header_bytes = SafetensorsHeaderBytes(
      file.path(), {first_bytes.data(), first_bytes.size()}, file.size_bytes());
  if (!header_bytes.ok()) return header_bytes.status();
  const absl::StatusOr<std::string> text = ReadText(file, kSafetensorsLengthBytes, *header_bytes);
  if (!text.ok()) return text.status();
  const uint64_t data_offset = kSafetensorsLengthBytes + *header_bytes;
  absl::StatusOr<std::vector<SafetensorsTensor>> tensors =
      ParseSafetensorsHeader(file.path(), *text, file.size_bytes() - data_offset);
  if (!tensors.ok()) return tensors.status();
  return Header{data_offset, *std::move(tensors)};
}

PlacedTensor PlaceOf(const WeightsFile& file, uint64_t data_offset, SafetensorsTensor tensor) {
  const uint64_t offset = data_offset + tensor.begin;
  return {&file, offset, std::move(tensor)};
}

}  // namespace

absl::StatusOr<std::unique_ptr<ModelFiles>> ModelFiles::Open(const std::string& path) {
  std::unique_ptr<ModelFiles> model(new ModelFiles);
  absl::Status status;
  if (IsFolder(path)) {
    absl::StatusOr<std::unique_ptr<WeightsFile>> index =
        WeightsFile::Open(InFolder(path, kIndexName));
    if (index.ok()) {
      status = model->OpenIndex(*std::move(index), path);
    } else if (!absl::IsNotFound(index.status())) {
      status = index.status();
    } else {
      status = model->OpenFile(InFolder(path, kSingleName));
      if (absl::IsNotFound(status)) {
        status = absl::NotFoundError(
            absl::StrCat(path, ": a folder with neither ", kIndexName, " nor ", kSingleName));
      }
    }
  } else {
    status = model->OpenFile(path);
  }
  if (!status.ok()) return status;
  return model;
}

absl::Status ModelFiles::OpenFile(const std::string& path) {
  path_ = path;
  absl::StatusOr<std::unique_ptr<WeightsFile>> file = WeightsFile::Open(path);
  if (!file.ok()) return file.status();
  if (!absl::EndsWith(path, kExtension)) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": unknown extension; expected a ", kExtension, " file or a folder"));
  }
  absl::StatusOr<Header> header = ReadFileHeader(**file);
  if (!header.ok()) return header.status();
  for (SafetensorsTensor& tensor : header->tensors) {
    std::string name = tensor.name;
    places_.emplace(std::move(name), PlaceOf(**file, header->data_offset, std::move(tensor)));
  }
  files_.push_back(*std::move(file));
  return absl::OkStatus();
}

absl::Status ModelFiles::OpenIndex(std::unique_ptr<WeightsFile> index, const std::string& folder) {
  path_ = index->path();
  folder_ = folder;
  if (index->size_bytes() > kMaxSafetensorsIndexBytes) {
    return SafetensorsIndexTooLarge(path_, index->size_bytes());
  }
  const absl::StatusOr<std::string> text = ReadText(*index, 0, index->size_bytes());
  if (!text.ok()) return text.status();
  absl::StatusOr<std::vector<IndexedTensor>> indexed = ParseSafetensorsIndex(path_, *text);
  if (!indexed.ok()) return indexed.status();
  indexed_ = *std::move(indexed);
  return absl::OkStatus();
}

std::vector<absl::string_view> ModelFiles::TensorNames() const {
  std::vector<absl::string_view> names;
  for (const IndexedTensor& tensor : indexed_) names.push_back(tensor.name);
  if (names.empty()) {
    for (const auto& [name, place] : places_) names.push_back(name);
    std::sort(names.begin(), names.end());
  }
  return names;
}

absl::Status ModelFiles::Place(absl::Span<const absl::string_view> names) {
  std::map<absl::string_view, std::vector<absl::string_view>> names_by_file;
  for (const absl::string_view name : names) {
    if (places_.contains(name)) continue;
    const auto indexed = std::lower_bound(
        indexed_.begin(), indexed_.end(), name,
        [](const IndexedTensor& each, absl::string_view wanted) { return each.name < wanted; });
    names_by_file[indexed->file].push_back(name);
  }
  for (const auto& [file, names_in_file] : names_by_file) {
    absl::Status status = PlaceInFile(file, names_in_file);
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

absl::Status ModelFiles::PlaceInFile(absl::string_view file,
                                     absl::Span<const absl::string_view> names) {
  absl::StatusOr<std::unique_ptr<WeightsFile>> opened = WeightsFile::Open(InFolder(folder_, file));
  if (!opened.ok()) {
    return absl::Status(opened.status().code(),
                        absl::StrCat(opened.status().message(), "; ", kIndexName,
                                     " names it for tensor ", QuotedTensorName(names.front())));
  }
  absl::StatusOr<Header> header = ReadFileHeader(**opened);
  if (!header.ok()) return header.status();
  absl::flat_hash_map<absl::string_view, SafetensorsTensor*> tensors;
  for (SafetensorsTensor& tensor : header->tensors) tensors.emplace(tensor.name, &tensor);
  for (const absl::string_view name : names) {
    const auto found = tensors.find(name);
    if (found == tensors.end()) {
      return absl::InvalidArgumentError(absl::StrCat((*opened)->path(), ": has no tensor ",
                                                     QuotedTensorName(name), ", but ", kIndexName,
                                                     " names this file for it"));
    }
    places_.emplace(name, PlaceOf(**opened, header->data_offset, *found->second));
  }
  files_.push_back(*std::move(opened));
  return absl::OkStatus();
}

}  // namespace swiglu::server
