// SPDX-License-Identifier: Apache-2.0
//
// Launch on the caller's thread, completion on the lane's.
#include "server/device/cuda_lane.h"

#include <utility>

#include "server/device/segment_table.h"
#include "server/log/log.h"
#include "swiglu/cuda.h"

namespace swiglu::server {
namespace {

// A kernel on mapped host memory reaches the bus's full rate with 16 to 64 blocks and loses up to a
// quarter of it with thousands.
constexpr swiglu::LaunchLimits kMappedLimits{.max_blocks = 32};

// How long the lane's thread polls before it sleeps. Longer than a small batch takes; waking up
// costs about as much.
constexpr std::chrono::microseconds kSpinTime{50};

}  // namespace

absl::StatusOr<std::unique_ptr<CudaLane>> CudaLane::Create(int ordinal) {
  absl::StatusOr<CudaStream> stream = MakeCudaStream(ordinal);
  if (!stream.ok()) return stream.status();
  absl::StatusOr<CudaEvent> event = MakeCudaEvent(ordinal);
  if (!event.ok()) return event.status();
  return std::unique_ptr<CudaLane>(new CudaLane(ordinal, *std::move(stream), *std::move(event)));
}

CudaLane::CudaLane(int ordinal, CudaStream stream, CudaEvent event)
    : ordinal_(ordinal), stream_(std::move(stream)), event_(std::move(event)) {
  thread_ = std::thread([this] { ServeCompletions(); });
}

CudaLane::~CudaLane() {
  {
    absl::MutexLock lock(&mutex_);
    stopping_ = true;
    changed_.Signal();
  }
  thread_.join();
}

void CudaLane::Run(const Batch& batch, Finished finished) {
  const Clock::time_point launched_at = Clock::now();
  const cudaError_t error = Launch(batch);
  if (error != cudaSuccess) {
    cudaGetLastError();  // reported here: the next launch on this thread must not find it again
    finished({error, Clock::now() - launched_at});
    return;
  }
  absl::MutexLock lock(&mutex_);
  CHECK(job_.finished == nullptr);
  job_ = {std::move(finished), launched_at};
  changed_.Signal();
}

cudaError_t CudaLane::Launch(const Batch& batch) {
  CHECK(batch.segments.size() <= static_cast<size_t>(swiglu::kMaxSegments));
  cudaError_t error = cudaSetDevice(ordinal_);
  if (error != cudaSuccess) return error;
  const swiglu::Dtype dtype = KernelDtype(batch.dtype);
  if (batch.op == Op::kForward) {
    const SegmentTable<swiglu::ForwardSegment> table(batch.segments);
    error = swiglu::ForwardCuda(dtype, table.view(), kMappedLimits, stream_.get());
  } else {
    const SegmentTable<swiglu::BackwardSegment> table(batch.segments);
    error = swiglu::BackwardCuda(dtype, table.view(), kMappedLimits, stream_.get());
  }
  if (error != cudaSuccess) return error;
  return cudaEventRecord(event_.get(), stream_.get());
}

void CudaLane::ServeCompletions() {
  while (true) {
    Job job = NextJob();
    if (job.finished == nullptr) return;
    const cudaError_t error = AwaitEvent();
    job.finished({error, Clock::now() - job.launched_at});
  }
}

CudaLane::Job CudaLane::NextJob() {
  absl::MutexLock lock(&mutex_);
  while (job_.finished == nullptr) {
    if (stopping_) return Job();
    changed_.Wait(&mutex_);
  }
  return std::exchange(job_, Job());
}

cudaError_t CudaLane::AwaitEvent() {
  const Clock::time_point spin_until = Clock::now() + kSpinTime;
  cudaError_t error = cudaEventQuery(event_.get());
  while (error == cudaErrorNotReady && Clock::now() < spin_until) {
    error = cudaEventQuery(event_.get());
  }
  if (error == cudaErrorNotReady) error = cudaEventSynchronize(event_.get());
  cudaGetLastError();  // "not ready" counts as an error of this thread, which may launch the next
                       // batch
  return error;
}

}  // namespace swiglu::server
