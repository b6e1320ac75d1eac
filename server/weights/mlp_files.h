// SPDX-License-Identifier: Apache-2.0
//
// The weights of MLPs in .safetensors files. This is where users of this folder start: open what a
// user asks for, look at the layers, read each layer.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "server/weights/layer_reader.h"
#include "server/weights/mlp_layer.h"
#include "server/weights/mlp_spec.h"
#include "server/weights/weights_file.h"

namespace swiglu::server {

// Where the matrices of a layer go. Each span has MlpLayer::matrix_bytes().
struct LayerBuffers {
  std::span<std::byte> gate;
  std::span<std::byte> up;
  std::span<std::byte> down;
};

// The layers that an MlpSpec asks for, with every name, dtype, shape and offset checked, and their
// files open. Holds one file descriptor for each file that has a wanted tensor, and none of the
// weights. Immutable, and so thread-safe: several threads may read at the same time.
class MlpFiles {
 public:
  // Opens `spec.path`: a .safetensors file, a folder with model.safetensors.index.json, or a folder
  // with model.safetensors. If a folder has both, the index counts. Symbolic links are followed.
  //
  // The MLP of layer N has the tensors gate_proj.weight and up_proj.weight, or gate_up_proj.weight,
  // and down_proj.weight. Their names begin with `layers.N.mlp.`, before which a prefix that ends
  // with `model.` may come. Or they have no such beginning; then they are layer 0. All of a layer
  // are F16, or all are BF16. Layers may differ in dtype and shape.
  //
  // Reads headers and the index, but no weights. Memory: at most 100 MB of text of one header or
  // index at a time, and what its parsed form takes. Blocks, but never waits for another process.
  //
  // Each error is one sentence that begins with the path of the file at fault. NOT_FOUND,
  // PERMISSION_DENIED or FAILED_PRECONDITION if a file is missing, is not readable or is not a
  // regular file. DATA_LOSS if a file becomes shorter meanwhile. INVALID_ARGUMENT for everything
  // that is wrong with the content of a file or with `spec.layers`.
  static absl::StatusOr<std::unique_ptr<const MlpFiles>> Open(const MlpSpec& spec);

  MlpFiles(const MlpFiles&) = delete;
  MlpFiles& operator=(const MlpFiles&) = delete;

  // At least one layer, in ascending order of their numbers.
  const std::vector<MlpLayer>& layers() const { return layers_; }
  // The bytes of all layers.
  int64_t size_bytes() const;

  // A reader of the layer `layers()[index]`, which must not outlive this object. INTERNAL if
  // libcrypto fails.
  // REQUIRES: index < layers().size().
  absl::StatusOr<LayerReader> StartReading(size_t index) const;

  // Reads the whole layer `layers()[index]` into `to`, and returns the SHA-256 of its bytes as
  // LayerReader::Finish does. Blocks. After every few MiB, calls `on_progress` on this thread with
  // the number of bytes of this layer that have been read so far. If that returns an error, reading
  // ends with it. On error the content of `to` is unspecified. Otherwise fails like LayerReader.
  // REQUIRES: index < layers().size(), and each span of `to` has the size of a matrix.
  absl::StatusOr<std::string> ReadLayer(size_t index, const LayerBuffers& to,
                                        absl::FunctionRef<absl::Status(int64_t)> on_progress) const;

 private:
  MlpFiles() = default;

  std::vector<std::unique_ptr<WeightsFile>> files_;
  std::vector<MlpLayer> layers_;
  std::vector<LayerPlaces> places_;  // in `files_`, one for each of `layers_`
};

}  // namespace swiglu::server
