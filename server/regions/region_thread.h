// SPDX-License-Identifier: Apache-2.0
//
// The registry of regions, and the thread that changes it. Registering a region maps and pins
// memory, which may take a second. So no thread that serves callers does it.
#pragma once

#include <deque>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/functional/any_invocable.h"
#include "absl/synchronization/mutex.h"
#include "server/regions/region_registry.h"

namespace swiglu::server {

// Thread-safe.
class RegionThread {
 public:
  using Task = absl::AnyInvocable<void(RegionRegistry&)>;

  // `opener` must outlive it. Starts a thread only if a kind of region is enabled.
  RegionThread(RegionLimits limits, RegionOpener* opener);
  // Runs the tasks that are left. REQUIRES: no region is in use.
  ~RegionThread();
  RegionThread(const RegionThread&) = delete;
  RegionThread& operator=(const RegionThread&) = delete;

  // Gives access to those methods of the registry that do not block.
  const RegionRegistry& registry() const { return registry_; }

  // Runs `task` on the thread, after the tasks that were posted before. REQUIRES: a kind of region
  // is enabled.
  void Post(Task task);

 private:
  void Run();

  absl::Mutex mutex_;
  std::deque<Task> tasks_ ABSL_GUARDED_BY(mutex_);
  bool has_released_ ABSL_GUARDED_BY(mutex_) = false;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  RegionRegistry registry_;
  std::thread thread_;
};

}  // namespace swiglu::server
