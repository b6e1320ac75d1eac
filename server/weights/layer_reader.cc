// SPDX-License-Identifier: Apache-2.0
//
// Reads piece by piece, and hashes each piece while it is in the processor's cache.
#include "server/weights/layer_reader.h"

#include <algorithm>

#include "server/log/log.h"

namespace swiglu::server {
namespace {

// Large enough that the cost of a system call does not matter, small enough for the cache.
constexpr int64_t kPieceBytes = int64_t{256} << 10;

}  // namespace

absl::StatusOr<LayerReader> LayerReader::Create(const MlpLayer& layer, const LayerPlaces& places) {
  absl::StatusOr<Sha256> sha256 = Sha256::Create();
  if (!sha256.ok()) return sha256.status();
  return LayerReader(layer.matrix_bytes(), places, *std::move(sha256));
}

absl::StatusOr<size_t> LayerReader::Read(std::span<std::byte> to) {
  const int64_t num_wanted = std::min(static_cast<int64_t>(to.size()), bytes_left());
  to = to.first(static_cast<size_t>(num_wanted));
  while (!to.empty()) {
    const MatrixPlace& place = places_[static_cast<size_t>(bytes_read_ / matrix_bytes_)];
    const int64_t done = bytes_read_ % matrix_bytes_;
    const int64_t piece_bytes =
        std::min({kPieceBytes, static_cast<int64_t>(to.size()), matrix_bytes_ - done});
    const std::span<std::byte> piece = to.first(static_cast<size_t>(piece_bytes));
    absl::Status status = place.file->Read(place.offset + static_cast<uint64_t>(done), piece);
    if (status.ok()) status = sha256_.Update(piece);
    if (!status.ok()) return status;
    to = to.subspan(piece.size());
    bytes_read_ += piece_bytes;
  }
  return static_cast<size_t>(num_wanted);
}

absl::StatusOr<std::string> LayerReader::Finish() {
  CHECK(bytes_left() == 0);
  for (const MatrixPlace& place : places_) {
    absl::Status status = place.file->CheckUnchanged();
    if (!status.ok()) return status;
  }
  return sha256_.Finish();
}

}  // namespace swiglu::server
