// SPDX-License-Identifier: Apache-2.0
//
// The thread's loop. See the header.
#include "server/weights/weights_thread.h"

#include <algorithm>
#include <utility>

#include "absl/time/clock.h"
#include "server/core/model.h"
#include "server/log/log.h"

namespace swiglu::server {

void WeightsThread::Start(Loaded loaded) {
  {
    absl::MutexLock lock(&mutex_);
    is_running_ = true;
  }
  thread_ = std::thread([this, loaded = std::move(loaded)] {
    Run(loaded);
    absl::MutexLock lock(&mutex_);
    is_running_ = false;
  });
}

void WeightsThread::Stop() {
  {
    absl::MutexLock lock(&mutex_);
    stopping_ = true;
  }
  // After the flag: the first load must not seem to have failed by itself.
  mlps_->Cancel();
}

void WeightsThread::Join() {
  Stop();
  if (thread_.joinable()) thread_.join();
}

bool WeightsThread::JoinBefore(absl::Time deadline) {
  Stop();
  const auto has_ended = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return !is_running_; };
  {
    absl::MutexLock lock(&mutex_);
    if (!mutex_.AwaitWithTimeout(absl::Condition(&has_ended), deadline - absl::Now())) {
      return false;
    }
  }
  Join();
  return true;
}

void WeightsThread::Reload(const std::string& mlp,
                           std::shared_ptr<const std::atomic<bool>> cancelled, Done done) {
  const size_t index = IndexOf(mlp);
  std::optional<ReloadFault> fault;
  std::optional<Job> abandoned;
  {
    absl::MutexLock lock(&mutex_);
    abandoned = TakeAbandoned(index);
    fault = WhyNot(index);
    if (!fault.has_value()) waiting_.push_back({index, std::move(cancelled), std::move(done)});
  }
  if (abandoned.has_value()) abandoned->done(ReloadRefusal{ReloadFault::kCancelled});
  if (fault.has_value()) done(ReloadRefusal{*fault});
}

std::optional<WeightsThread::Job> WeightsThread::TakeAbandoned(size_t index) {
  const auto found = std::find_if(waiting_.begin(), waiting_.end(), [&](const Job& job) {
    return job.index == index && job.cancelled->load();
  });
  if (found == waiting_.end()) return std::nullopt;
  Job job = std::move(*found);
  waiting_.erase(found);
  return job;
}

std::optional<ReloadFault> WeightsThread::WhyNot(size_t index) const {
  if (stopping_) return ReloadFault::kStopping;
  if (!is_loaded_) return ReloadFault::kLoading;
  if (IsUnderWay(index)) return ReloadFault::kUnderWay;
  return std::nullopt;
}

bool WeightsThread::IsUnderWay(size_t index) const {
  return running_ == index || std::any_of(waiting_.begin(), waiting_.end(),
                                          [&](const Job& job) { return job.index == index; });
}

size_t WeightsThread::IndexOf(const std::string& mlp) const {
  const auto& mlps = mlps_->mlps();
  const auto found = std::find_if(mlps.begin(), mlps.end(), [&](const OfferedMlp& offered) {
    return MlpSeries(offered.spec.name) == mlp;
  });
  CHECK(found != mlps.end());
  return static_cast<size_t>(found - mlps.begin());
}

void WeightsThread::Run(const Loaded& loaded) {
  if (!LoadAll(loaded)) return;
  while (std::optional<Job> job = Next()) {
    const std::optional<ReloadRefusal> refusal = Do(*job);
    {
      absl::MutexLock lock(&mutex_);
      running_.reset();
    }
    job->done(refusal);
  }
}

bool WeightsThread::LoadAll(const Loaded& loaded) {
  const absl::Status status = mlps_->Load(*loader_, num_threads_);
  {
    absl::MutexLock lock(&mutex_);
    if (stopping_) return false;
    is_loaded_ = status.ok();
  }
  loaded(status);
  return status.ok();
}

std::optional<WeightsThread::Job> WeightsThread::Next() {
  const auto has_work = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return stopping_ || !waiting_.empty();
  };
  absl::MutexLock lock(&mutex_);
  mutex_.Await(absl::Condition(&has_work));
  if (waiting_.empty()) return std::nullopt;
  Job job = std::move(waiting_.front());
  waiting_.pop_front();
  running_ = job.index;
  return job;
}

std::optional<ReloadRefusal> WeightsThread::Do(const Job& job) {
  const auto is_wanted = [&job] { return !job.cancelled->load(); };
  absl::Status status = absl::CancelledError("before it began");
  if (is_wanted() && !mlps_->is_cancelled()) {
    status = mlps_->Reload(job.index, *loader_, num_threads_, is_wanted);
  }
  if (status.ok()) return std::nullopt;
  if (mlps_->is_cancelled()) return ReloadRefusal{ReloadFault::kStopping};
  if (!is_wanted()) return ReloadRefusal{ReloadFault::kCancelled};
  return ReloadRefusal{ReloadFault::kFailed, std::move(status)};
}

}  // namespace swiglu::server
