// SPDX-License-Identifier: Apache-2.0
//
// From a batch to calls of the CPU kernels.
#include "server/device/cpu_executor.h"

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>

#include "absl/strings/str_cat.h"
#include "server/device/segment_table.h"
#include "server/log/log.h"
#include "swiglu/cpu.h"

namespace swiglu::server {
namespace {

// What one thread computes in a fraction of a millisecond.
constexpr int64_t kMaxBatchBytes = int64_t{1} << 20;

// Inputs that come in pieces are put together in blocks of this size, each: all of them stay in the
// first level of the cache.
constexpr int64_t kBlockBytes = int64_t{8} << 10;

swiglu::KernelStatus Compute(Dtype dtype, const swiglu::ForwardSegment& segment) {
  return swiglu::ForwardCpu(dtype, {&segment, 1});
}

swiglu::KernelStatus Compute(Dtype dtype, const swiglu::BackwardSegment& segment) {
  return swiglu::BackwardCpu(dtype, {&segment, 1});
}

template <typename KernelSegment>
swiglu::KernelStatus ComputeWhole(Dtype dtype, const Segment& segment) {
  KernelSegment converted;
  Convert(segment, converted);
  return Compute(dtype, converted);
}

// A segment some of whose inputs come from a reader.
template <typename KernelSegment>
swiglu::KernelStatus ComputeInBlocks(const Model& model, const Segment& segment) {
  alignas(64) std::byte inputs[kMaxTensors][kBlockBytes];
  const int64_t element_bytes = ElementBytes(model.dtype);
  Segment block = segment;
  for (int64_t left = segment.num_elements; left > 0; left -= block.num_elements) {
    block.num_elements = std::min(left, kBlockBytes / element_bytes);
    const auto size_bytes = static_cast<size_t>(block.num_elements * element_bytes);
    for (size_t k = 0; k < model.inputs.size(); ++k) {
      if (segment.inputs[k] != nullptr) continue;
      segment.reader->Read(static_cast<int>(k), inputs[k], size_bytes);
      block.inputs[k] = inputs[k];
    }
    const swiglu::KernelStatus status = ComputeWhole<KernelSegment>(model.dtype, block);
    if (status != swiglu::KernelStatus::kOk) return status;
    for (size_t k = 0; k < model.inputs.size(); ++k) {
      if (segment.inputs[k] != nullptr) block.inputs[k] += size_bytes;
    }
    for (size_t k = 0; k < model.outputs.size(); ++k) block.outputs[k] += size_bytes;
  }
  return swiglu::KernelStatus::kOk;
}

template <typename KernelSegment>
swiglu::KernelStatus ComputeAll(const Model& model, const Batch& batch) {
  for (const Segment& segment : batch.segments) {
    const swiglu::KernelStatus status = segment.reader != nullptr
                                            ? ComputeInBlocks<KernelSegment>(model, segment)
                                            : ComputeWhole<KernelSegment>(model.dtype, segment);
    if (status != swiglu::KernelStatus::kOk) return status;
  }
  return swiglu::KernelStatus::kOk;
}

absl::Status ComputeElementwise(const Batch& batch) {
  const Model& model = *batch.model;
  const swiglu::KernelStatus status = model.op == Op::kForward
                                          ? ComputeAll<swiglu::ForwardSegment>(model, batch)
                                          : ComputeAll<swiglu::BackwardSegment>(model, batch);
  if (status == swiglu::KernelStatus::kOk) return absl::OkStatus();
  return absl::InternalError(
      absl::StrCat("the CPU kernel refused a batch: ", swiglu::ToString(status)));
}

}  // namespace

absl::StatusOr<std::unique_ptr<CpuExecutor>> CpuExecutor::Create(CpuExecutorOptions options) {
  if (options.num_lanes < 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("the CPU needs at least 1 lane, not ", options.num_lanes));
  }
  return std::unique_ptr<CpuExecutor>(new CpuExecutor(options));
}

CpuExecutor::CpuExecutor(CpuExecutorOptions options)
    : num_lanes_(options.num_lanes), slab_pool_(MakeHostMemory(), options.memory) {
  if (options.mlp_threads > 0) mlp_.emplace(options.mlp_threads);
}

int CpuExecutor::max_segments() const { return swiglu::kMaxSegments; }

int64_t CpuExecutor::max_batch_bytes() const { return kMaxBatchBytes; }

void CpuExecutor::Run(const Batch& batch, Done done) {
  if (!IsElementwise(batch.model->op)) {
    CHECK(mlp_.has_value());
    return mlp_->Run(batch, std::move(done));
  }
  const auto start = std::chrono::steady_clock::now();
  Execution execution;
  execution.path = Path::kCpu;
  execution.status = ComputeElementwise(batch);
  execution.times.compute = std::chrono::steady_clock::now() - start;
  done(execution);
}

std::string CpuExecutor::description() const {
  return absl::StrCat("cpu (", swiglu::CpuTarget(), ", ", num_lanes_,
                      num_lanes_ == 1 ? " lane)" : " lanes)");
}

}  // namespace swiglu::server
