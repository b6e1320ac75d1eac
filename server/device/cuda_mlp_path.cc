// SPDX-License-Identifier: Apache-2.0
//
// Copies in, the pass, copies out.
#include "server/device/cuda_mlp_path.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <cstddef>
#include <vector>

#include "server/device/cuda_weights.h"
#include "server/log/log.h"
#include "swiglu/cuda_mlp.h"

namespace swiglu::server {
namespace {

// The most tensors of an MLP: x, dy and dx.
constexpr int kMlpTensors = 3;

static_assert(swiglu::kCopyAlignment == swiglu::kCudaMlpAlignment);

constexpr int64_t RoundUpTo256(int64_t bytes) { return (bytes + 255) / 256 * 256; }

// Whether the kernels can read input k, or write output k, where it lies.
bool IsDirectInput(const Batch& batch, int ordinal, size_t k) {
  return batch.placement == Placement{ordinal, true} && batch.segments.size() == 1 &&
         IsAlignedForKernels(batch.segments.front().inputs[k]);
}
bool IsDirectOutput(const Batch& batch, int ordinal, size_t k) {
  if (batch.placement != Placement{ordinal, true} || batch.segments.size() != 1) return false;
  const Segment& segment = batch.segments.front();
  const std::byte* const output = segment.outputs[k];
  return IsAlignedForKernels(output) &&
         std::find(segment.inputs.begin(), segment.inputs.end(), output) == segment.inputs.end();
}

// Whether output k is wanted. A segment without rows has no addresses, whatever it wants.
bool IsWanted(const Batch& batch, size_t k) {
  return batch.segments.size() != 1 || batch.segments.front().outputs[k] != nullptr;
}

int64_t BytesOf(const Segment& segment, const Model& model) {
  return segment.num_elements * ElementBytes(model.dtype);
}

// The part of `segment` from element `first` on. A tensor that is not wanted stays nullptr.
Segment PieceOf(const Segment& segment, const Model& model, int64_t first, int64_t num_elements) {
  Segment piece = segment;
  const int64_t skipped_bytes = first * ElementBytes(model.dtype);
  for (const std::byte*& input : piece.inputs) {
    if (input != nullptr) input += skipped_bytes;
  }
  for (std::byte*& output : piece.outputs) {
    if (output != nullptr) output += skipped_bytes;
  }
  piece.num_elements = num_elements;
  return piece;
}

// Memory of the device for the gradients of a batch that cannot be added up where they go. It is
// taken and given back in the order of the stream.
class DeviceSums {
 public:
  DeviceSums(const Batch& batch, int ordinal, cudaStream_t stream)
      : batch_(batch), ordinal_(ordinal), stream_(stream) {}

  ~DeviceSums() {
    for (float* const memory : memory_) {
      if (memory != nullptr) cudaFreeAsync(memory, stream_);
    }
  }
  DeviceSums(const DeviceSums&) = delete;
  DeviceSums& operator=(const DeviceSums&) = delete;

  cudaError_t Allocate() {
    for (size_t i = 0; i < memory_.size(); ++i) {
      float* const gradient = wanted()[i];
      if (gradient == nullptr) continue;
      const bool is_direct =
          batch_.placement == Placement{ordinal_, true} && IsAlignedForKernels(gradient);
      if (is_direct) continue;
      void* memory = nullptr;
      const cudaError_t error = cudaMallocAsync(&memory, SizeBytes(i), stream_);
      if (error != cudaSuccess) return error;
      memory_[i] = static_cast<float*>(memory);
    }
    return cudaSuccess;
  }

  // Where the gradients are added up.
  swiglu::MlpWeightGradients gradients() const {
    const auto at = [this](size_t i) { return memory_[i] != nullptr ? memory_[i] : wanted()[i]; };
    return {.gate = at(0), .up = at(1), .down = at(2)};
  }

  // Enqueues the copies to where the gradients go.
  cudaError_t CopyOut() {
    for (size_t i = 0; i < memory_.size(); ++i) {
      if (memory_[i] == nullptr) continue;
      const cudaError_t error =
          cudaMemcpyAsync(wanted()[i], memory_[i], SizeBytes(i), cudaMemcpyDefault, stream_);
      if (error != cudaSuccess) return error;
    }
    return cudaSuccess;
  }

 private:
  const std::array<float*, kMaxGradients>& wanted() const {
    return batch_.segments.front().gradients;
  }
  size_t SizeBytes(size_t i) const {
    return static_cast<size_t>(batch_.model->gradients[i].size_bytes());
  }

  const Batch& batch_;
  const int ordinal_;
  const cudaStream_t stream_;
  std::array<float*, kMaxGradients> memory_{};  // nullptr: not wanted, or added up where it goes
};

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
    // No call needs more than one for all gradients.
    path.workspace_bytes_ = std::max(path.workspace_bytes_,
                                     swiglu::MlpGradientsWorkspaceBytes(weights, shape.max_tokens));
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

CudaMlpPath::PassPlan CudaMlpPath::PlanPass(const Batch& batch) const {
  const Model& model = *batch.model;
  CHECK(NumElements(batch) * ElementBytes(model.dtype) <= tensor_bytes_);
  std::byte* place = d_buffer_.get() + workspace_bytes_;
  PassPlan plan{{batch.placement, ordinal_}, {batch.placement, ordinal_}};
  for (size_t k = 0; k < model.inputs.size(); ++k, place += tensor_bytes_) {
    const bool is_direct = IsDirectInput(batch, ordinal_, k);
    plan.inputs[k] = is_direct ? batch.segments.front().inputs[k] : place;
    if (is_direct) continue;
    std::byte* to = place;
    for (const Segment& segment : batch.segments) {
      plan.in.Add(segment.inputs[k], to, BytesOf(segment, model));
      to += BytesOf(segment, model);
    }
  }
  for (size_t k = 0; k < model.outputs.size(); ++k, place += tensor_bytes_) {
    if (!IsWanted(batch, k)) continue;
    const bool is_direct = IsDirectOutput(batch, ordinal_, k);
    plan.outputs[k] = is_direct ? batch.segments.front().outputs[k] : place;
    if (is_direct) continue;
    const std::byte* from = place;
    for (const Segment& segment : batch.segments) {
      plan.out.Add(from, segment.outputs[k], BytesOf(segment, model));
      from += BytesOf(segment, model);
    }
  }
  return plan;
}

cudaError_t CudaMlpPath::EnqueuePass(const Batch& batch, const PassPlan& plan,
                                     const swiglu::MlpWeightGradients& gradients,
                                     cudaStream_t stream) const {
  CHECK(batch.weights != nullptr);
  const swiglu::CudaMlpWeights weights =
      static_cast<const CudaWeights&>(*batch.weights).On(ordinal_);
  const int64_t num_tokens = NumElements(batch) / batch.model->row_elements;
  std::byte* const workspace = d_buffer_.get();
  if (batch.model->op == Op::kMlpForward) {
    return swiglu::MlpForwardCuda(
        weights, {plan.inputs[0], plan.outputs[0], num_tokens, workspace, workspace_bytes_},
        swiglu::MlpPath::kAuto, stream);
  }
  return swiglu::MlpBackwardCuda(weights,
                                 {plan.inputs[0], plan.inputs[1], plan.outputs[0], num_tokens,
                                  workspace, workspace_bytes_, gradients},
                                 swiglu::MlpPath::kAuto, stream);
}

cudaError_t CudaMlpPath::Enqueue(const Batch& batch, cudaStream_t stream) {
  const bool wants_gradients = WantsGradients(batch);
  gathers_ = scatters_ = false;
  has_work_ = wants_gradients || NumElements(batch) > 0;
  if (!has_work_) return cudaSuccess;
  if (wants_gradients) return EnqueueGradients(batch, stream);

  PassPlan plan = PlanPass(batch);
  gathers_ = !plan.in.empty();
  scatters_ = !plan.out.empty();
  cudaError_t error = cudaSuccess;
  if (gathers_) error = cudaEventRecord(begun_.get(), stream);
  if (error == cudaSuccess) error = plan.in.Enqueue(stream);
  if (error == cudaSuccess) error = cudaEventRecord(gathered_.get(), stream);
  if (error == cudaSuccess) error = EnqueuePass(batch, plan, {}, stream);
  if (error == cudaSuccess) error = cudaEventRecord(computed_.get(), stream);
  if (error == cudaSuccess) error = plan.out.Enqueue(stream);
  if (error == cudaSuccess && scatters_) error = cudaEventRecord(scattered_.get(), stream);
  return error;
}

cudaError_t CudaMlpPath::EnqueueGradients(const Batch& batch, cudaStream_t stream) {
  cudaError_t error = cudaEventRecord(gathered_.get(), stream);
  DeviceSums sums(batch, ordinal_, stream);
  if (error == cudaSuccess) error = sums.Allocate();
  if (error == cudaSuccess) error = EnqueuePieces(batch, sums.gradients(), stream);
  if (error == cudaSuccess) error = sums.CopyOut();
  if (error == cudaSuccess) error = cudaEventRecord(computed_.get(), stream);
  return error;
}

cudaError_t CudaMlpPath::EnqueuePieces(const Batch& batch, swiglu::MlpWeightGradients gradients,
                                       cudaStream_t stream) {
  const Model& model = *batch.model;
  const int64_t piece_elements = GradientRows(model) * model.row_elements;
  const int64_t num_elements = NumElements(batch);
  int64_t first = 0;
  // Once without rows, too: then the sums are zeros.
  do {
    Batch piece = batch;
    piece.segments = {PieceOf(batch.segments.front(), model, first,
                              std::min(piece_elements, num_elements - first))};
    PassPlan plan = PlanPass(piece);
    cudaError_t error = plan.in.Enqueue(stream);
    if (error == cudaSuccess) error = EnqueuePass(piece, plan, gradients, stream);
    if (error == cudaSuccess) error = plan.out.Enqueue(stream);
    if (error != cudaSuccess) return error;
    gradients.sums = swiglu::MlpSums::kContinue;
    first += piece_elements;
  } while (first < num_elements);
  return cudaSuccess;
}

cudaError_t CudaMlpPath::AddTimes(PhaseTimes& times) const {
  if (!has_work_) return cudaSuccess;
  cudaError_t error = AddElapsed(gathered_, computed_, times.compute);
  if (error == cudaSuccess && gathers_) error = AddElapsed(begun_, gathered_, times.copy_in);
  if (error == cudaSuccess && scatters_) error = AddElapsed(computed_, scattered_, times.copy_out);
  return error;
}

}  // namespace swiglu::server
