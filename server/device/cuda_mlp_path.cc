// SPDX-License-Identifier: Apache-2.0
//
// Copies in, the pass, copies out.
#include "server/device/cuda_mlp_path.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <cstddef>
#include <vector>

#include "absl/types/span.h"
#include "server/device/cuda_weights.h"
#include "server/log/log.h"
#include "swiglu/cuda_copy.h"
#include "swiglu/cuda_mlp.h"

namespace swiglu::server {
namespace {

// The most tensors of an MLP: x, dy and dx.
constexpr int kMlpTensors = 3;

// A kernel that reads or writes pinned host memory reaches the bus's full rate with so many blocks.
constexpr int kHostCopyBlocks = 32;

constexpr int64_t RoundUpTo256(int64_t bytes) { return (bytes + 255) / 256 * 256; }

bool IsAligned(const std::byte* data) {
  return reinterpret_cast<uintptr_t>(data) % swiglu::kCudaMlpAlignment == 0;
}

// Whether the kernels can read input k, or write output k, where it lies.
bool IsDirectInput(const Batch& batch, int ordinal, size_t k) {
  return batch.placement == Placement{ordinal, true} && batch.segments.size() == 1 &&
         IsAligned(batch.segments.front().inputs[k]);
}
bool IsDirectOutput(const Batch& batch, int ordinal, size_t k) {
  if (batch.placement != Placement{ordinal, true} || batch.segments.size() != 1) return false;
  const Segment& segment = batch.segments.front();
  const std::byte* const output = segment.outputs[k];
  return IsAligned(output) &&
         std::find(segment.inputs.begin(), segment.inputs.end(), output) == segment.inputs.end();
}

int64_t BytesOf(const Segment& segment, const Model& model) {
  return segment.num_elements * ElementBytes(model.dtype);
}

// Collects copies and enqueues them together.
class Copies {
 public:
  // The tensors of `batch` lie where its placement says.
  Copies(const Batch& batch, int ordinal)
      : device_sees_all_(batch.placement.device == kCpuDevice || batch.placement.device == ordinal),
        max_blocks_(batch.placement.is_resident ? 0 : kHostCopyBlocks) {}

  void Add(const void* from, void* to, int64_t size_bytes) {
    if (size_bytes > 0) pieces_.push_back({from, to, size_bytes});
  }

  bool empty() const { return pieces_.empty(); }

  // One launch does what the kernel can copy. The driver copies the rest: single pieces, those that
  // are not aligned, and those of another device.
  cudaError_t Enqueue(cudaStream_t stream) {
    const auto for_kernel = [this](const swiglu::CopyPiece& piece) {
      return device_sees_all_ && piece.size_bytes % swiglu::kCopyAlignment == 0 &&
             IsAligned(static_cast<const std::byte*>(piece.from)) &&
             IsAligned(static_cast<const std::byte*>(piece.to));
    };
    auto rest = std::stable_partition(pieces_.begin(), pieces_.end(), for_kernel);
    if (rest - pieces_.begin() <= 1) rest = pieces_.begin();
    absl::Span<const swiglu::CopyPiece> aligned(pieces_.data(),
                                                static_cast<size_t>(rest - pieces_.begin()));
    while (!aligned.empty()) {
      const auto now = aligned.subspan(0, swiglu::kMaxCopyPieces);
      const cudaError_t error =
          swiglu::CopyCuda({now.data(), now.size()}, {.max_blocks = max_blocks_}, stream);
      if (error != cudaSuccess) return error;
      aligned.remove_prefix(now.size());
    }
    for (; rest != pieces_.end(); ++rest) {
      const cudaError_t error = cudaMemcpyAsync(
          rest->to, rest->from, static_cast<size_t>(rest->size_bytes), cudaMemcpyDefault, stream);
      if (error != cudaSuccess) return error;
    }
    return cudaSuccess;
  }

 private:
  const bool device_sees_all_;
  const int max_blocks_;
  std::vector<swiglu::CopyPiece> pieces_;
};

// The tensors of a batch, each in one piece in the device's memory.
struct DeviceTensors {
  std::array<const std::byte*, kMaxTensors> inputs{};
  std::array<std::byte*, kMaxTensors> outputs{};
};

cudaError_t Pass(const swiglu::CudaMlpWeights& weights, const Batch& batch,
                 const DeviceTensors& tensors, void* workspace, int64_t workspace_bytes,
                 cudaStream_t stream) {
  const int64_t num_tokens = NumElements(batch) / batch.model->row_elements;
  if (batch.model->op == Op::kMlpForward) {
    return swiglu::MlpForwardCuda(
        weights, {tensors.inputs[0], tensors.outputs[0], num_tokens, workspace, workspace_bytes},
        swiglu::MlpPath::kAuto, stream);
  }
  return swiglu::MlpBackwardCuda(weights,
                                 {tensors.inputs[0], tensors.inputs[1], tensors.outputs[0],
                                  num_tokens, workspace, workspace_bytes},
                                 swiglu::MlpPath::kAuto, stream);
}

cudaError_t AddElapsed(const CudaEvent& from, const CudaEvent& to, std::chrono::nanoseconds& sum) {
  float ms = 0;
  const cudaError_t error = cudaEventElapsedTime(&ms, from.get(), to.get());
  sum += std::chrono::duration_cast<std::chrono::nanoseconds>(
      std::chrono::duration<float, std::milli>(ms));
  return error;
}

}  // namespace

absl::StatusOr<CudaMlpPath> CudaMlpPath::Create(int ordinal, const std::vector<MlpShape>& shapes) {
  CudaMlpPath path;
  path.ordinal_ = ordinal;
  for (const MlpShape& shape : shapes) {
    const swiglu::CudaMlpWeights weights{Dtype::kBf16, shape.hidden, shape.intermediate, nullptr,
                                         nullptr};
    path.workspace_bytes_ = std::max(
        {path.workspace_bytes_, swiglu::MlpForwardWorkspaceBytes(weights, shape.max_tokens),
         swiglu::MlpBackwardWorkspaceBytes(weights, shape.max_tokens)});
    path.tensor_bytes_ = std::max(path.tensor_bytes_, shape.max_tokens * shape.hidden * 2);
  }
  path.workspace_bytes_ = RoundUpTo256(path.workspace_bytes_);
  path.tensor_bytes_ = RoundUpTo256(path.tensor_bytes_);
  absl::StatusOr<CudaMemory> buffer = MakeCudaMemory(
      ordinal, static_cast<size_t>(path.workspace_bytes_ + kMlpTensors * path.tensor_bytes_));
  if (!buffer.ok()) return buffer.status();
  path.d_buffer_ = *std::move(buffer);
  for (CudaEvent* event : {&path.begun_, &path.gathered_, &path.computed_, &path.scattered_}) {
    absl::StatusOr<CudaEvent> made = MakeCudaEvent(ordinal, CudaEventKind::kTiming);
    if (!made.ok()) return made.status();
    *event = *std::move(made);
  }
  return path;
}

cudaError_t CudaMlpPath::Enqueue(const Batch& batch, cudaStream_t stream) {
  const Model& model = *batch.model;
  CHECK(batch.weights != nullptr);
  const int64_t batch_bytes = NumElements(batch) * ElementBytes(model.dtype);
  CHECK(batch_bytes <= tensor_bytes_);
  has_work_ = batch_bytes > 0;
  if (!has_work_) return cudaSuccess;

  std::byte* place = d_buffer_.get() + workspace_bytes_;
  DeviceTensors tensors;
  Copies in(batch, ordinal_);
  Copies out(batch, ordinal_);
  for (size_t k = 0; k < model.inputs.size(); ++k, place += tensor_bytes_) {
    const bool is_direct = IsDirectInput(batch, ordinal_, k);
    tensors.inputs[k] = is_direct ? batch.segments.front().inputs[k] : place;
    if (is_direct) continue;
    std::byte* to = place;
    for (const Segment& segment : batch.segments) {
      in.Add(segment.inputs[k], to, BytesOf(segment, model));
      to += BytesOf(segment, model);
    }
  }
  for (size_t k = 0; k < model.outputs.size(); ++k, place += tensor_bytes_) {
    const bool is_direct = IsDirectOutput(batch, ordinal_, k);
    tensors.outputs[k] = is_direct ? batch.segments.front().outputs[k] : place;
    if (is_direct) continue;
    const std::byte* from = place;
    for (const Segment& segment : batch.segments) {
      out.Add(from, segment.outputs[k], BytesOf(segment, model));
      from += BytesOf(segment, model);
    }
  }

  gathers_ = !in.empty();
  scatters_ = !out.empty();
  cudaError_t error = cudaSuccess;
  if (gathers_) error = cudaEventRecord(begun_.get(), stream);
  if (error == cudaSuccess) error = in.Enqueue(stream);
  if (error == cudaSuccess) error = cudaEventRecord(gathered_.get(), stream);
  if (error == cudaSuccess) {
    const auto& weights = static_cast<const CudaWeights&>(*batch.weights);
    error = Pass(weights.On(ordinal_), batch, tensors, d_buffer_.get(), workspace_bytes_, stream);
  }
  if (error == cudaSuccess) error = cudaEventRecord(computed_.get(), stream);
  if (error == cudaSuccess) error = out.Enqueue(stream);
  if (error == cudaSuccess && scatters_) error = cudaEventRecord(scattered_.get(), stream);
  return error;
}

cudaError_t CudaMlpPath::AddTimes(PhaseTimes& times) const {
  if (!has_work_) return cudaSuccess;
  cudaError_t error = AddElapsed(gathered_, computed_, times.compute);
  if (error == cudaSuccess && gathers_) error = AddElapsed(begun_, gathered_, times.copy_in);
  if (error == cudaSuccess && scatters_) error = AddElapsed(computed_, scattered_, times.copy_out);
  return error;
}

}  // namespace swiglu::server
