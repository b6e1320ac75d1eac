// SPDX-License-Identifier: Apache-2.0
//
// From a path to checked layers: names first, then headers, then shapes. See the header.
#include "server/weights/mlp_files.h"

#include <algorithm>
#include <numeric>

#include "absl/strings/string_view.h"
#include "server/log/log.h"
#include "server/weights/layer_plan.h"
#include "server/weights/layer_shape.h"
#include "server/weights/model_files.h"

namespace swiglu::server {
namespace {

// How many bytes are read between two reports of progress.
constexpr size_t kReportBytes = size_t{8} << 20;

std::vector<absl::string_view> TensorsOf(const std::vector<PlannedLayer>& planned) {
  std::vector<absl::string_view> names;
  for (const PlannedLayer& layer : planned) {
    names.push_back(layer.gate);
    if (!layer.is_fused) names.push_back(layer.up);
    names.push_back(layer.down);
  }
  return names;
}

}  // namespace

absl::StatusOr<std::unique_ptr<const MlpFiles>> MlpFiles::Open(const MlpSpec& spec) {
  const absl::StatusOr<std::unique_ptr<ModelFiles>> opened = ModelFiles::Open(spec.path);
  if (!opened.ok()) return opened.status();
  ModelFiles& model = **opened;
  const absl::StatusOr<std::vector<PlannedLayer>> planned =
      PlanLayers(model.path(), model.TensorNames(), spec.layers);
  if (!planned.ok()) return planned.status();
  absl::Status status = model.Place(TensorsOf(*planned));
  if (!status.ok()) return status;

  std::unique_ptr<MlpFiles> files(new MlpFiles);
  for (const PlannedLayer& layer : *planned) {
    const absl::StatusOr<ShapedLayer> shaped = ShapeLayer(
        layer, {model.place(layer.gate), model.place(layer.up), model.place(layer.down)});
    if (!shaped.ok()) return shaped.status();
    files->layers_.push_back(shaped->layer);
    files->places_.push_back(shaped->places);
  }
  files->files_ = model.TakeFiles();
  return files;
}

int64_t MlpFiles::size_bytes() const {
  return std::accumulate(
      layers_.begin(), layers_.end(), int64_t{0},
      [](int64_t sum, const MlpLayer& layer) { return sum + layer.size_bytes(); });
}

absl::StatusOr<LayerReader> MlpFiles::StartReading(size_t index) const {
  CHECK(index < layers_.size());
  return LayerReader::Create(layers_[index], places_[index]);
}

absl::StatusOr<std::string> MlpFiles::ReadLayer(
    size_t index, const LayerBuffers& to,
    absl::FunctionRef<absl::Status(int64_t)> on_progress) const {
  absl::StatusOr<LayerReader> reader = StartReading(index);
  if (!reader.ok()) return reader.status();
  for (std::span<std::byte> matrix : {to.gate, to.up, to.down}) {
    CHECK(static_cast<int64_t>(matrix.size()) == layers_[index].matrix_bytes());
    while (!matrix.empty()) {
      const absl::StatusOr<size_t> num_read =
          reader->Read(matrix.first(std::min(matrix.size(), kReportBytes)));
      if (!num_read.ok()) return num_read.status();
      matrix = matrix.subspan(*num_read);
      if (absl::Status status = on_progress(reader->bytes_read()); !status.ok()) return status;
    }
  }
  return reader->Finish();
}

}  // namespace swiglu::server
