// SPDX-License-Identifier: Apache-2.0
//
// Copies, kernel, copies, with an event behind each.
#include "server/device/cuda_staged_path.h"

#include <chrono>
#include <utility>
#include <vector>

#include "server/device/cuda_launch.h"

namespace swiglu::server {
namespace {

size_t TensorBytes(const StagedPart& part, const Model& model) {
  return part.host.num_elements * ElementBytes(model.dtype);
}

cudaError_t CopyIn(const Model& model, const Portion& portion, std::byte* d_buffer,
                   cudaStream_t stream) {
  for (const StagedPart& part : portion) {
    for (size_t k = 0; k < model.inputs.size(); ++k) {
      const cudaError_t error =
          cudaMemcpyAsync(d_buffer + part.place(k), part.host.inputs[k], TensorBytes(part, model),
                          cudaMemcpyDefault, stream);
      if (error != cudaSuccess) return error;
    }
  }
  return cudaSuccess;
}

cudaError_t Compute(const Model& model, const Portion& portion, std::byte* d_buffer,
                    cudaStream_t stream) {
  std::vector<Segment> d_segments;
  d_segments.reserve(portion.size());
  for (const StagedPart& part : portion) d_segments.push_back(InBuffer(part, model, d_buffer));
  return LaunchKernel(model, d_segments, 0, stream);
}

cudaError_t CopyOut(const Model& model, const Portion& portion, std::byte* d_buffer,
                    cudaStream_t stream) {
  for (const StagedPart& part : portion) {
    for (size_t k = 0; k < model.outputs.size(); ++k) {
      const cudaError_t error =
          cudaMemcpyAsync(part.host.outputs[k], d_buffer + part.place(k), TensorBytes(part, model),
                          cudaMemcpyDefault, stream);
      if (error != cudaSuccess) return error;
    }
  }
  return cudaSuccess;
}

cudaError_t AddElapsed(cudaEvent_t from, cudaEvent_t to, std::chrono::nanoseconds& sum) {
  float ms = 0;
  const cudaError_t error = cudaEventElapsedTime(&ms, from, to);
  sum += std::chrono::duration_cast<std::chrono::nanoseconds>(
      std::chrono::duration<float, std::milli>(ms));
  return error;
}

}  // namespace

absl::StatusOr<CudaStagedPath> CudaStagedPath::Create(int ordinal) {
  CudaStagedPath path;
  absl::StatusOr<CudaMemory> buffer = MakeCudaMemory(ordinal, kLaneBufferBytes);
  if (!buffer.ok()) return buffer.status();
  path.d_buffer_ = *std::move(buffer);
  for (CudaEvent* event : {&path.begun_, &path.copied_in_, &path.computed_, &path.copied_out_}) {
    absl::StatusOr<CudaEvent> made = MakeCudaEvent(ordinal, CudaEventKind::kTiming);
    if (!made.ok()) return made.status();
    *event = *std::move(made);
  }
  return path;
}

cudaError_t CudaStagedPath::EnqueueCompute(const Model& model, const Portion& portion,
                                           cudaStream_t stream) {
  std::byte* const d_buffer = d_buffer_.get();
  cudaError_t error = cudaEventRecord(begun_.get(), stream);
  if (error == cudaSuccess) error = CopyIn(model, portion, d_buffer, stream);
  if (error == cudaSuccess) error = cudaEventRecord(copied_in_.get(), stream);
  if (error == cudaSuccess) error = Compute(model, portion, d_buffer, stream);
  if (error == cudaSuccess) error = cudaEventRecord(computed_.get(), stream);
  return error;
}

cudaError_t CudaStagedPath::EnqueueCopyOut(const Model& model, const Portion& portion,
                                           cudaStream_t stream) {
  cudaError_t error = CopyOut(model, portion, d_buffer_.get(), stream);
  if (error == cudaSuccess) error = cudaEventRecord(copied_out_.get(), stream);
  return error;
}

cudaError_t CudaStagedPath::AddTimes(PhaseTimes& times) const {
  cudaError_t error = AddElapsed(begun_.get(), copied_in_.get(), times.copy_in);
  if (error == cudaSuccess) {
    error = AddElapsed(copied_in_.get(), computed_.get(), times.compute);
  }
  if (error == cudaSuccess) {
    error = AddElapsed(computed_.get(), copied_out_.get(), times.copy_out);
  }
  return error;
}

}  // namespace swiglu::server
