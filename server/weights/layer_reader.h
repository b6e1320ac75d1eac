// SPDX-License-Identifier: Apache-2.0
//
// Reads the weights of one layer from the files, and computes their SHA-256 on the way.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <utility>

#include "absl/status/statusor.h"
#include "server/weights/mlp_layer.h"
#include "server/weights/sha256.h"

namespace swiglu::server {

// Gives the bytes of a layer in one pass: those of gate, then up, then down, each row-major as it
// lies in its file. The caller chooses where the bytes go and in which portions. So it may reuse a
// small pinned buffer, or read straight into the final memory. The bytes of the hash are the same
// for a fused tensor and for separate ones.
//
// Borrows the files (see MlpFiles), and must not outlive them. Not thread-safe, but several
// readers, of the same layer or of others, may read at the same time on several threads.
class LayerReader {
 public:
  // A reader at the first byte. `layer` and `places` are of the same layer. INTERNAL if libcrypto
  // fails.
  static absl::StatusOr<LayerReader> Create(const MlpLayer& layer, const LayerPlaces& places);

  // Reads the next bytes into `to`: as many as it has room for, or all that are left. Returns their
  // number, which is 0 only if `to` is empty or nothing is left. Blocks. On error some bytes of
  // `to` may have been written, and the reader must not be used any more. DATA_LOSS if a file has
  // become too short.
  absl::StatusOr<size_t> Read(std::span<std::byte> to);

  // The bytes read so far, and those that are left.
  int64_t bytes_read() const { return bytes_read_; }
  int64_t bytes_left() const {
    return static_cast<int64_t>(kNumMlpMatrices) * matrix_bytes_ - bytes_read_;
  }

  // The SHA-256 of all bytes of the layer, as 64 lower-case hexadecimal digits. DATA_LOSS if a file
  // was changed since it was opened: then the bytes that were read may be of no use. Ends the use
  // of the reader. REQUIRES: bytes_left() is 0.
  absl::StatusOr<std::string> Finish();

 private:
  LayerReader(int64_t matrix_bytes, const LayerPlaces& places, Sha256 sha256)
      : matrix_bytes_(matrix_bytes), places_(places), sha256_(std::move(sha256)) {}

  int64_t matrix_bytes_;
  LayerPlaces places_;
  Sha256 sha256_;  // of the bytes read so far
  int64_t bytes_read_ = 0;
};

}  // namespace swiglu::server
