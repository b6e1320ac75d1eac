// SPDX-License-Identifier: Apache-2.0
//
// Lane threads around the CPU kernels and their pool.
#include "server/device/cpu_executor.h"

#include <chrono>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/types/span.h"
#include "server/device/segment_table.h"
#include "server/log/log.h"
#include "swiglu/cpu.h"
#include "swiglu/cpu_pool.h"

namespace swiglu::server {
namespace {

swiglu::KernelStatus Compute(swiglu::CpuPool& pool, swiglu::Dtype dtype,
                             std::span<const swiglu::ForwardSegment> segments) {
  return pool.Forward(dtype, segments);
}

swiglu::KernelStatus Compute(swiglu::CpuPool& pool, swiglu::Dtype dtype,
                             std::span<const swiglu::BackwardSegment> segments) {
  return pool.Backward(dtype, segments);
}

template <typename KernelSegment>
swiglu::KernelStatus Compute(swiglu::CpuPool& pool, const Batch& batch) {
  const SegmentTable<KernelSegment> table(batch.segments);
  return Compute(pool, KernelDtype(batch.dtype), table.view());
}

Execution Execute(swiglu::CpuPool& pool, const Batch& batch) {
  const auto start = std::chrono::steady_clock::now();
  const swiglu::KernelStatus status = batch.op == Op::kForward
                                          ? Compute<swiglu::ForwardSegment>(pool, batch)
                                          : Compute<swiglu::BackwardSegment>(pool, batch);
  Execution execution;
  execution.path = Path::kCpu;
  execution.compute = std::chrono::steady_clock::now() - start;
  if (status != swiglu::KernelStatus::kOk) {
    execution.status = absl::InternalError(
        absl::StrCat("the CPU kernel refused a batch: ", swiglu::ToString(status)));
  }
  return execution;
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
    : num_lanes_(options.num_lanes),
      slab_pool_(MakeHostMemory(), options.memory),
      compute_pool_(std::make_unique<swiglu::CpuPool>(options.num_lanes)) {
  lanes_.reserve(num_lanes_);
  for (int lane = 0; lane < num_lanes_; ++lane) lanes_.emplace_back([this] { ServeLane(); });
}

CpuExecutor::~CpuExecutor() {
  {
    absl::MutexLock lock(&mutex_);
    stopping_ = true;
    job_added_.SignalAll();
  }
  for (std::thread& lane : lanes_) lane.join();
}

int CpuExecutor::max_segments() const { return swiglu::kMaxSegments; }

void CpuExecutor::Run(const Batch& batch, Done done) {
  CHECK(static_cast<int>(batch.segments.size()) <= max_segments());
  absl::MutexLock lock(&mutex_);
  CHECK(num_inflight_ < num_lanes_);
  ++num_inflight_;
  jobs_.push_back({&batch, std::move(done)});
  job_added_.Signal();
}

std::string CpuExecutor::description() const {
  return absl::StrCat("cpu (", swiglu::CpuTarget(), ", ", num_lanes_,
                      num_lanes_ == 1 ? " lane)" : " lanes)");
}

void CpuExecutor::ServeLane() {
  while (std::optional<Job> job = NextJob()) {
    const Execution execution = Execute(*compute_pool_, *job->batch);
    {
      // The lane counts as free before `done`, which may bring the next batch.
      absl::MutexLock lock(&mutex_);
      --num_inflight_;
    }
    job->done(execution);
  }
}

std::optional<CpuExecutor::Job> CpuExecutor::NextJob() {
  absl::MutexLock lock(&mutex_);
  while (jobs_.empty()) {
    if (stopping_) return std::nullopt;
    job_added_.Wait(&mutex_);
  }
  Job job = std::move(jobs_.front());
  jobs_.pop_front();
  return job;
}

}  // namespace swiglu::server
