// SPDX-License-Identifier: Apache-2.0
//
// From files to packed weights. See the header.
#include "server/device/cpu_weights.h"

#include <new>
#include <span>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace swiglu::server {
namespace {

absl::Status NoMemory(const MlpLayer& layer) {
  return absl::ResourceExhaustedError(
      absl::StrCat("no memory for the weights of layer ", layer.number, ": they need ",
                   3 * layer.size_bytes(), " bytes while they load"));
}

}  // namespace

absl::StatusOr<std::shared_ptr<const Weights>> CpuWeightsLoader::Load(
    const MlpFiles& files, size_t index, const Weights* /*current*/,
    absl::FunctionRef<absl::Status(int64_t)> on_progress) {
  const MlpLayer& layer = files.layers()[index];
  const auto matrix_bytes = static_cast<size_t>(layer.matrix_bytes());
  const std::unique_ptr<std::byte[]> memory(new (std::nothrow) std::byte[3 * matrix_bytes]);
  if (memory == nullptr) return NoMemory(layer);
  const std::span<std::byte> all(memory.get(), 3 * matrix_bytes);
  const LayerBuffers buffers{all.first(matrix_bytes), all.subspan(matrix_bytes, matrix_bytes),
                             all.last(matrix_bytes)};
  absl::StatusOr<std::string> sha256 = files.ReadLayer(index, buffers, on_progress);
  if (!sha256.ok()) return sha256.status();

  std::unique_ptr<const swiglu::CpuMlpWeights> packed;
  const swiglu::MlpStatus status =
      swiglu::CpuMlpWeights::Create({layer.dtype, layer.hidden, layer.intermediate,
                                     buffers.gate.data(), buffers.up.data(), buffers.down.data()},
                                    swiglu::MlpPacking::kForwardAndBackward, packed);
  if (status == swiglu::MlpStatus::kOutOfMemory) return NoMemory(layer);
  if (status != swiglu::MlpStatus::kOk) {
    return absl::InternalError(absl::StrCat("the CPU kernel refused the weights of layer ",
                                            layer.number, ": ", swiglu::ToString(status)));
  }
  return std::make_shared<const CpuWeights>(std::move(packed), *std::move(sha256));
}

}  // namespace swiglu::server
