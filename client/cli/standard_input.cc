// SPDX-License-Identifier: Apache-2.0
//
// Decides on format and limit, then reads.
#include "client/cli/standard_input.h"

#include <unistd.h>

#include <cstdint>
#include <utility>

#include "absl/strings/str_cat.h"
#include "client/files/standard_streams.h"
#include "client/files/stream_bytes.h"
#include "client/files/tensor_format.h"
#include "server/base/memory_limit.h"

namespace swiglu::cli {
namespace {

using files::Format;
using files::RawTensors;
using files::StreamBytes;
using files::TensorFile;

absl::Status BeyondMemory(uint64_t num_bytes, uint64_t max_bytes) {
  return absl::ResourceExhaustedError(absl::StrCat(
      num_bytes, " bytes or more; the most is ", max_bytes,
      " bytes, which with the results and their messages fill the ", server::MemoryLimitBytes(),
      " bytes that this process may use; put the tensors into a file"));
}

// One byte more than `max_bytes` shows that the stream is too long.
absl::Status ReadToEnd(StreamBytes& stream, uint64_t max_bytes) {
  return stream.ReadUntil(STDIN_FILENO, max_bytes + 1);
}

absl::StatusOr<TensorFile> ReadRaw(const RawTensors& raw, uint64_t max_bytes) {
  const absl::StatusOr<int64_t> raw_bytes = files::RawBytes(raw);
  if (!raw_bytes.ok()) return raw_bytes.status();
  const auto needed_bytes = static_cast<uint64_t>(*raw_bytes);
  if (needed_bytes > max_bytes) return BeyondMemory(needed_bytes, max_bytes);
  StreamBytes stream;
  const absl::Status status = ReadToEnd(stream, needed_bytes);
  if (!status.ok()) return status;
  if (stream.bytes().size() > needed_bytes) {
    return absl::ResourceExhaustedError(
        absl::StrCat("more than the ", needed_bytes, " bytes that --shape and --dtype need"));
  }
  return TensorFile("stdin", std::move(stream), Format::kRaw);
}

absl::StatusOr<TensorFile> ReadSelfDescribing(uint64_t max_bytes) {
  StreamBytes stream;
  absl::Status status = stream.ReadUntil(STDIN_FILENO, files::kFormatBytes);
  if (!status.ok()) return status;
  if (stream.bytes().empty()) return absl::InvalidArgumentError("no bytes came");
  const absl::StatusOr<Format> format = files::FormatOfContent(stream.bytes());
  if (!format.ok()) {
    return absl::InvalidArgumentError(
        absl::StrCat(format.status().message(), "; raw bytes need --shape and --dtype"));
  }
  status = ReadToEnd(stream, max_bytes);
  if (!status.ok()) return status;
  if (stream.bytes().size() > max_bytes) return BeyondMemory(stream.bytes().size(), max_bytes);
  return TensorFile("stdin", std::move(stream), *format);
}

}  // namespace

absl::StatusOr<TensorFile> ReadStandardInput(const std::optional<RawTensors>& raw,
                                             uint64_t max_bytes) {
  const absl::Status status = files::CheckMayReadStandardInput();
  if (!status.ok()) return status;
  absl::StatusOr<TensorFile> file =
      raw.has_value() ? ReadRaw(*raw, max_bytes) : ReadSelfDescribing(max_bytes);
  if (file.ok()) return file;
  return absl::Status(file.status().code(), absl::StrCat("stdin: ", file.status().message()));
}

}  // namespace swiglu::cli
