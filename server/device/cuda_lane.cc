// SPDX-License-Identifier: Apache-2.0
//
// Launch and completion. Both are on the lane's thread, unless the plan lets the caller wait. A
// thread of any lane that brings a batch from a completion launches it, too.
#include "server/device/cuda_lane.h"

#include <utility>

#include "server/device/cuda_launch.h"
#include "server/gpu/cuda_status.h"
#include "server/log/log.h"

namespace swiglu::server {
namespace {

// How long the lane's thread polls before it sleeps. Longer than a small batch takes; waking up
// costs about as much.
constexpr std::chrono::microseconds kSpinTime{50};

// Whether the calling thread is a lane's.
thread_local bool t_serves_lane = false;

}  // namespace

absl::StatusOr<std::unique_ptr<CudaLane>> CudaLane::Create(int ordinal, LaneUse use) {
  CHECK(use != LaneUse::kMlp);
  Paths paths;
  if (use == LaneUse::kAny) {
    absl::StatusOr<CudaStagedPath> created = CudaStagedPath::Create(ordinal);
    if (!created.ok()) return created.status();
    paths.staged = *std::move(created);
  }
  return Make(ordinal, std::move(paths));
}

absl::StatusOr<std::unique_ptr<CudaLane>> CudaLane::CreateForMlps(
    int ordinal, const std::vector<MlpShape>& shapes) {
  absl::StatusOr<CudaMlpPath> created = CudaMlpPath::Create(ordinal, shapes);
  if (!created.ok()) return created.status();
  Paths paths;
  paths.mlp = *std::move(created);
  return Make(ordinal, std::move(paths));
}

absl::StatusOr<std::unique_ptr<CudaLane>> CudaLane::Make(int ordinal, Paths paths) {
  absl::StatusOr<CudaStream> stream = MakeCudaStream(ordinal);
  if (!stream.ok()) return stream.status();
  absl::StatusOr<CudaEvent> event = MakeCudaEvent(ordinal, CudaEventKind::kWaiting);
  if (!event.ok()) return event.status();
  return std::unique_ptr<CudaLane>(
      new CudaLane(ordinal, *std::move(stream), *std::move(event), std::move(paths)));
}

CudaLane::CudaLane(int ordinal, CudaStream stream, CudaEvent event, Paths paths)
    : ordinal_(ordinal),
      stream_(std::move(stream)),
      event_(std::move(event)),
      paths_(std::move(paths)) {
  thread_ = std::thread([this] { ServeJobs(); });
}

CudaLane::~CudaLane() {
  {
    absl::MutexLock lock(&mutex_);
    stopping_ = true;
    changed_.Signal();
  }
  thread_.join();
}

void CudaLane::Run(const Batch& batch, LaunchPlan plan, Finished finished) {
  Job job{&batch, std::move(plan), std::move(finished)};
  job.execution.path = job.plan.path;
  // So many launches keep the thread of a lane, too, from what it has to report.
  const bool is_long = WantsGradients(batch);
  if ((t_serves_lane && !is_long) || job.plan.caller_launches) {
    const cudaError_t error = Enqueue(job);
    if (error != cudaSuccess) return Finish(std::move(job), error);
    if (IsDoneWithin(job.plan.caller_wait)) return Finish(std::move(job), Await(job));
  }
  absl::MutexLock lock(&mutex_);
  CHECK(job_.finished == nullptr);
  job_ = std::move(job);
  has_job_.store(true, std::memory_order_release);
  changed_.Signal();
}

cudaError_t CudaLane::Enqueue(Job& job) {
  if (!job.is_begun()) job.launched_at = Clock::now();
  cudaError_t error = cudaSetDevice(ordinal_);
  if (error == cudaSuccess) error = EnqueueWork(job);
  if (error == cudaSuccess) error = cudaEventRecord(event_.get(), stream_.get());
  if (error == cudaSuccess) return cudaSuccess;
  // Copies in front of what failed may still be on their way to memory that is about to go.
  cudaStreamSynchronize(stream_.get());
  cudaGetLastError();  // reported here: the next launch on this thread must not find it again
  return error;
}

cudaError_t CudaLane::EnqueueWork(Job& job) {
  const Model& model = *job.batch->model;
  if (!IsElementwise(model.op)) {
    CHECK(paths_.mlp.has_value());
    job.outputs = Outputs::kUnspecified;
    return paths_.mlp->Enqueue(*job.batch, stream_.get());
  }
  if (job.plan.path != Path::kStaged) {
    const cudaError_t error =
        LaunchKernel(model, job.batch->segments, job.plan.max_blocks, stream_.get());
    if (error == cudaSuccess) job.outputs = Outputs::kUnspecified;
    return error;
  }
  CHECK(paths_.staged.has_value());
  const Portion& portion = job.plan.portions[job.num_enqueued++];
  const cudaError_t error = paths_.staged->EnqueueCompute(model, portion, stream_.get());
  if (error != cudaSuccess) return error;
  job.outputs = Outputs::kUnspecified;
  return paths_.staged->EnqueueCopyOut(model, portion, stream_.get());
}

cudaError_t CudaLane::Await(Job& job) {
  const cudaError_t error = AwaitEvent();
  if (error != cudaSuccess) return error;
  if (paths_.mlp.has_value()) return paths_.mlp->AddTimes(job.execution.times);
  if (job.plan.path == Path::kStaged) return paths_.staged->AddTimes(job.execution.times);
  job.execution.times.compute = Clock::now() - job.launched_at;
  return cudaSuccess;
}

cudaError_t CudaLane::AwaitEvent() {
  cudaError_t error = PollEvent(kSpinTime);
  if (error == cudaErrorNotReady) error = cudaEventSynchronize(event_.get());
  cudaGetLastError();
  return error;
}

cudaError_t CudaLane::PollEvent(std::chrono::microseconds spin_time) {
  const Clock::time_point spin_until = Clock::now() + spin_time;
  cudaError_t error = cudaEventQuery(event_.get());
  while (error == cudaErrorNotReady && Clock::now() < spin_until) {
    error = cudaEventQuery(event_.get());
  }
  cudaGetLastError();  // "not ready" counts as an error of this thread, which may launch the next
                       // batch
  return error;
}

bool CudaLane::IsDoneWithin(std::chrono::microseconds time) {
  // A lane's thread has batches of its own to report.
  if (time.count() == 0 || t_serves_lane) return false;
  const Clock::time_point begin = Clock::now();
  const bool is_done = PollEvent(time) != cudaErrorNotReady;
  const std::chrono::nanoseconds took = Clock::now() - begin;
  caller_wait_ns_.fetch_add(took.count(), std::memory_order_relaxed);
  return is_done;
}

void CudaLane::Finish(Job job, cudaError_t error) {
  LaneResult result{std::move(job.execution), std::nullopt};
  if (error != cudaSuccess) {
    result.execution.status = CudaStatus(error, ordinal_);
    result.fault = DeviceFault{ClassifyCudaError(error), DescribeCudaError(error), job.outputs};
  }
  job.finished(result);
}

void CudaLane::ServeJobs() {
  t_serves_lane = true;
  while (true) {
    Job job = NextJob();
    if (job.finished == nullptr) return;
    cudaError_t error = job.is_begun() ? cudaSuccess : Enqueue(job);
    if (error == cudaSuccess) error = Await(job);
    while (error == cudaSuccess && job.num_enqueued < job.plan.portions.size()) {
      error = Enqueue(job);
      if (error == cudaSuccess) error = Await(job);
    }
    Finish(std::move(job), error);
  }
}

CudaLane::Job CudaLane::NextJob() {
  const Clock::time_point spin_until = Clock::now() + kSpinTime;
  while (!has_job_.load(std::memory_order_acquire) && Clock::now() < spin_until) {
  }
  absl::MutexLock lock(&mutex_);
  while (job_.finished == nullptr) {
    if (stopping_) return Job();
    changed_.Wait(&mutex_);
  }
  has_job_.store(false, std::memory_order_relaxed);
  return std::exchange(job_, Job());
}

}  // namespace swiglu::server
