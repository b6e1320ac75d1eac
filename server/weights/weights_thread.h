// SPDX-License-Identifier: Apache-2.0
//
// The thread that loads weights: first those of all MLPs, while the server already answers, and
// then those of one MLP at a time, whenever a client asks for it.
#pragma once

#include <atomic>
#include <cstddef>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "server/core/mlp_reloader.h"
#include "server/weights/mlp_store.h"
#include "server/weights/weights_loader.h"

namespace swiglu::server {

// Reloads wait for each other, but no MLP has more than one that runs or waits. So there are never
// more than there are MLPs. Thread-safe, except `Start` and `Join`.
class WeightsThread final : public MlpReloader {
 public:
  // Called once, on the thread, with the result of the first load. Not called after `Stop`.
  using Loaded = std::function<void(const absl::Status&)>;

  // `num_threads` (1 or more) layers are loaded at a time. `mlps` and `loader` must outlive it.
  WeightsThread(MlpStore* mlps, WeightsLoader* loader, int num_threads)
      : mlps_(mlps), loader_(loader), num_threads_(num_threads) {}
  // Stops and joins.
  ~WeightsThread() override { Join(); }
  WeightsThread(const WeightsThread&) = delete;
  WeightsThread& operator=(const WeightsThread&) = delete;

  // Begins the first load. What `loaded` uses must live until `Join` has returned. Call it at most
  // once.
  void Start(Loaded loaded);

  // Ends the load that runs, and the reloads that wait, as soon as no thread packs a layer or waits
  // for a disk. Refuses further reloads. Does not block.
  void Stop();

  // Stops, and waits until every `done` has returned. A load that hangs makes it wait forever.
  void Join();

  // As `Join`, but waits until `deadline` at most. Returns whether the thread has ended. If not,
  // what the thread uses must live until the process ends.
  bool JoinBefore(absl::Time deadline);

  // MlpReloader.
  void Reload(const std::string& mlp, std::shared_ptr<const std::atomic<bool>> cancelled,
              Done done) override;

 private:
  // A reload that was not refused.
  struct Job {
    size_t index = 0;  // of the MLP
    std::shared_ptr<const std::atomic<bool>> cancelled;
    Done done;
  };

  // The thread.
  void Run(const Loaded& loaded);
  // The first load. Returns whether reloads may follow.
  bool LoadAll(const Loaded& loaded);
  // Waits for a job. nullopt: stopping, and none is left.
  std::optional<Job> Next();
  std::optional<ReloadRefusal> Do(const Job& job);

  // Takes the job for that MLP that waits though its caller has gone, if there is one.
  std::optional<Job> TakeAbandoned(size_t index) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  size_t IndexOf(const std::string& mlp) const;
  bool IsUnderWay(size_t index) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  std::optional<ReloadFault> WhyNot(size_t index) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  MlpStore* const mlps_;
  WeightsLoader* const loader_;
  const int num_threads_;
  absl::Mutex mutex_;
  bool is_loaded_ ABSL_GUARDED_BY(mutex_) = false;  // the first load has succeeded
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  bool is_running_ ABSL_GUARDED_BY(mutex_) = false;  // the thread, but for its last instructions
  std::deque<Job> waiting_ ABSL_GUARDED_BY(mutex_);
  std::optional<size_t> running_ ABSL_GUARDED_BY(mutex_);  // the MLP that is reloaded now
  std::thread thread_;
};

}  // namespace swiglu::server
