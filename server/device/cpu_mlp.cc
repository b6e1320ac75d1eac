// SPDX-License-Identifier: Apache-2.0
//
// From the segments of a batch to one call of the kernel, and back.
#include "server/device/cpu_mlp.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <new>
#include <span>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/device/cpu_weights.h"
#include "server/log/log.h"
#include "swiglu/cpu_mlp.h"

namespace swiglu::server {
namespace {

constexpr std::align_val_t kAlignment{swiglu::kMlpAlignment};

struct AlignedDelete {
  void operator()(std::byte* memory) const { ::operator delete(memory, kAlignment); }
};
using AlignedMemory = std::unique_ptr<std::byte, AlignedDelete>;

size_t PaddedBytes(size_t size_bytes) {
  return (size_bytes + swiglu::kMlpAlignment - 1) / swiglu::kMlpAlignment * swiglu::kMlpAlignment;
}

// The tensors of a batch, each in one piece.
struct Gathered {
  std::array<const std::byte*, kMaxTensors> inputs{};
  std::array<std::byte*, kMaxTensors> outputs{};
};

// Whether input k of the batch lies in one piece already.
bool IsWhole(const Batch& batch, size_t k) {
  return batch.segments.size() == 1 && batch.segments.front().inputs[k] != nullptr;
}

// Whether the batch leaves output k out. All segments of a batch with several do without gradients,
// so they want every output.
bool IsLeftOut(const Batch& batch, size_t k) {
  return batch.segments.size() == 1 && batch.segments.front().outputs[k] == nullptr;
}

// Whether output k can be written where it belongs: it is in one piece, and replaces no input. So
// can an output that is left out.
bool IsWritable(const Batch& batch, size_t k) {
  if (batch.segments.size() != 1) return false;
  if (IsLeftOut(batch, k)) return true;
  const Segment& segment = batch.segments.front();
  for (const std::byte* input : segment.inputs) {
    if (input == segment.outputs[k]) return false;
  }
  return true;
}

void ReadInput(const Batch& batch, size_t k, std::byte* to) {
  for (const Segment& segment : batch.segments) {
    const auto size_bytes =
        static_cast<size_t>(segment.num_elements * ElementBytes(batch.model->dtype));
    if (segment.inputs[k] != nullptr) {
      std::memcpy(to, segment.inputs[k], size_bytes);
    } else if (size_bytes > 0) {
      segment.reader->Read(static_cast<int>(k), to, size_bytes);
    }
    to += size_bytes;
  }
}

void WriteOutput(const Batch& batch, size_t k, const std::byte* from) {
  for (const Segment& segment : batch.segments) {
    const auto size_bytes =
        static_cast<size_t>(segment.num_elements * ElementBytes(batch.model->dtype));
    if (size_bytes > 0) std::memcpy(segment.outputs[k], from, size_bytes);
    from += size_bytes;
  }
}

swiglu::MlpStatus Call(const swiglu::CpuMlpWeights& weights, const Model& model,
                       const Gathered& tensors, const swiglu::MlpWeightGradients& gradients,
                       int64_t num_tokens, std::span<std::byte> workspace, swiglu::CpuPool& pool) {
  if (model.op == Op::kMlpForward) {
    return weights.Forward({tensors.inputs[0], tensors.outputs[0], num_tokens, workspace}, pool);
  }
  return weights.Backward(
      {tensors.inputs[0], tensors.inputs[1], tensors.outputs[0], num_tokens, workspace, gradients},
      pool);
}

// The gradients that the only segment of `batch` wants.
swiglu::MlpWeightGradients GradientsOf(const Batch& batch, swiglu::MlpSums sums) {
  if (!WantsGradients(batch)) return {};
  const auto [gate, up, down] = batch.segments.front().gradients;
  return {gate, up, down, sums};
}

}  // namespace

CpuMlp::CpuMlp(int num_threads) : pool_(num_threads) {
  thread_ = std::thread([this] { ServeJobs(); });
}

CpuMlp::~CpuMlp() {
  {
    absl::MutexLock lock(&mutex_);
    stopping_ = true;
  }
  thread_.join();
}

void CpuMlp::Run(const Batch& batch, Executor::Done done) {
  absl::MutexLock lock(&mutex_);
  jobs_.push_back({&batch, std::move(done)});
}

void CpuMlp::ServeJobs() {
  const auto has_work = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return stopping_ || !jobs_.empty();
  };
  while (true) {
    Job job;
    {
      absl::MutexLock lock(&mutex_);
      mutex_.Await(absl::Condition(&has_work));
      if (jobs_.empty()) return;
      job = std::move(jobs_.front());
      jobs_.pop_front();
    }
    const auto start = std::chrono::steady_clock::now();
    Execution execution;
    execution.path = Path::kCpu;
    execution.status = Compute(*job.batch);
    execution.times.compute = std::chrono::steady_clock::now() - start;
    job.done(execution);
  }
}

absl::Status CpuMlp::Compute(const Batch& batch) {
  CHECK(batch.weights != nullptr);
  if (WantsGradients(batch)) return ComputeGradients(batch);
  return NumElements(batch) == 0 ? absl::OkStatus() : ComputeAtOnce(batch, swiglu::MlpSums::kBegin);
}

absl::Status CpuMlp::ComputeGradients(const Batch& batch) {
  const Model& model = *batch.model;
  const int64_t piece_elements = GradientRows(model) * model.row_elements;
  const int64_t piece_bytes = piece_elements * ElementBytes(model.dtype);
  Batch piece = batch;
  Segment& segment = piece.segments.front();
  swiglu::MlpSums sums = swiglu::MlpSums::kBegin;
  int64_t left = segment.num_elements;
  // Once without rows, too: then the gradients are zeros.
  do {
    segment.num_elements = std::min(left, piece_elements);
    absl::Status status = ComputeAtOnce(piece, sums);
    if (!status.ok()) return status;
    left -= segment.num_elements;
    for (const std::byte*& input : segment.inputs) {
      if (input != nullptr) input += piece_bytes;
    }
    for (std::byte*& output : segment.outputs) {
      if (output != nullptr) output += piece_bytes;
    }
    sums = swiglu::MlpSums::kContinue;
  } while (left > 0);
  return absl::OkStatus();
}

absl::Status CpuMlp::ComputeAtOnce(const Batch& batch, swiglu::MlpSums sums) {
  const Model& model = *batch.model;
  const swiglu::CpuMlpWeights& weights = static_cast<const CpuWeights&>(*batch.weights).packed();
  const int64_t num_elements = NumElements(batch);
  const int64_t num_tokens = num_elements / model.row_elements;

  const size_t tensor_bytes =
      PaddedBytes(static_cast<size_t>(num_elements * ElementBytes(model.dtype)));
  const auto workspace_bytes =
      static_cast<size_t>(model.op == Op::kMlpForward ? weights.ForwardWorkspaceBytes(num_tokens)
                                                      : weights.BackwardWorkspaceBytes(num_tokens));
  size_t num_copies = 0;
  for (size_t k = 0; k < model.inputs.size(); ++k) num_copies += IsWhole(batch, k) ? 0 : 1;
  for (size_t k = 0; k < model.outputs.size(); ++k) num_copies += IsWritable(batch, k) ? 0 : 1;
  const size_t needed_bytes = PaddedBytes(workspace_bytes) + num_copies * tensor_bytes;
  const AlignedMemory memory(
      static_cast<std::byte*>(::operator new(needed_bytes, kAlignment, std::nothrow)));
  if (memory == nullptr) {
    return absl::ResourceExhaustedError(absl::StrCat("no memory to compute ", num_tokens,
                                                     " tokens: they need ", needed_bytes,
                                                     " bytes beside their tensors"));
  }

  std::byte* next_copy = memory.get() + PaddedBytes(workspace_bytes);
  const auto take_copy = [&] { return std::exchange(next_copy, next_copy + tensor_bytes); };
  Gathered tensors;
  for (size_t k = 0; k < model.inputs.size(); ++k) {
    if (IsWhole(batch, k)) {
      tensors.inputs[k] = batch.segments.front().inputs[k];
      continue;
    }
    std::byte* const copy = take_copy();
    ReadInput(batch, k, copy);
    tensors.inputs[k] = copy;
  }
  for (size_t k = 0; k < model.outputs.size(); ++k) {
    tensors.outputs[k] = IsWritable(batch, k) ? batch.segments.front().outputs[k] : take_copy();
  }
  const swiglu::MlpStatus status = Call(weights, model, tensors, GradientsOf(batch, sums),
                                        num_tokens, {memory.get(), workspace_bytes}, pool_);
  if (status != swiglu::MlpStatus::kOk) {
    return absl::InternalError(
        absl::StrCat("the CPU kernel refused a batch: ", swiglu::ToString(status)));
  }
  for (size_t k = 0; k < model.outputs.size(); ++k) {
    if (!IsWritable(batch, k)) WriteOutput(batch, k, tensors.outputs[k]);
  }
  return absl::OkStatus();
}

}  // namespace swiglu::server
