// SPDX-License-Identifier: Apache-2.0
//
// Opens and maps the files that clients share as system regions. Does not use CUDA.
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <variant>

#include "absl/strings/string_view.h"
#include "server/base/descriptor.h"
#include "server/core/region.h"

namespace swiglu::server {

// A shared mapping of a part of a file. Any thread may read and write it.
class SharedFile {
 public:
  // Opens the file in /dev/shm that `shm_open` would open for the name `source.key`. Maps
  // `size_bytes` of the file, from `source.offset` on. The file's name is `source.key` without its
  // first '/', if it begins with one. Refuses with kKey unless all of this holds: the name is not
  // empty, has at most 255 bytes, begins with `prefix`, and contains neither '/' nor ".." nor a
  // zero byte; the file is a regular file and not a link; this process may read and write it.
  // kNoMemory if too many files are open. Other refusals are those of `Map`.
  static std::variant<SharedFile, RegionRefusal> Open(const SystemRegionSource& source,
                                                      uint64_t size_bytes,
                                                      absl::string_view prefix);
  // Maps a part of a regular file that is open for reading and writing. kOffset if `offset` is not
  // a multiple of the file's page size; kSize if the file ends before the part does; kKey if the
  // file must not be mapped for writing; kNoMemory if the system has no room.
  static std::variant<SharedFile, RegionRefusal> Map(Descriptor file, uint64_t offset,
                                                     uint64_t size_bytes);

  SharedFile(SharedFile&& other) noexcept;
  SharedFile& operator=(SharedFile&&) = delete;
  ~SharedFile();

  std::byte* data() const { return data_; }
  // A whole number of pages, with at least the bytes that were asked for.
  size_t mapped_bytes() const { return mapped_bytes_; }
  size_t page_bytes() const { return page_bytes_; }
  // Whether the file now ends before the end of the part that was asked for.
  bool IsShrunk() const;

 private:
  SharedFile(Descriptor file, std::byte* data, size_t mapped_bytes, size_t page_bytes,
             uint64_t end_offset)
      : file_(std::move(file)),
        data_(data),
        mapped_bytes_(mapped_bytes),
        page_bytes_(page_bytes),
        end_offset_(end_offset) {}

  Descriptor file_;
  std::byte* data_;
  size_t mapped_bytes_;
  size_t page_bytes_;
  uint64_t end_offset_;
};

// Opens system regions for executors that read and write them with the CPU.
class HostRegionOpener final : public RegionOpener {
 public:
  // `prefix`: the text with which the names of files must begin.
  explicit HostRegionOpener(std::string prefix) : prefix_(std::move(prefix)) {}

  bool Supports(RegionKind kind) const override { return kind == RegionKind::kSystem; }
  OpenedRegion Open(const RegionSpec& spec) override;

 private:
  const std::string prefix_;
};

}  // namespace swiglu::server
