// SPDX-License-Identifier: Apache-2.0
//
// Counts and durations per model since the server's start, for the protocol's ModelStatistics. The
// data path reports through the `Observer` interface. The control service reads the figures.
#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "server/core/model_registry.h"
#include "server/core/observer.h"

namespace swiglu::server {

// A number of events, and their total time.
struct CountAndTime {
  int64_t count = 0;
  std::chrono::nanoseconds time{0};

  void Add(std::chrono::nanoseconds duration) {
    ++count;
    time += duration;
  }
};

struct BatchSizeStatistics {
  CountAndTime copy_in, compute, copy_out;
};

// One model's figures. A failed request counts only in `fail`.
struct ModelStatistics {
  // The wall-clock time at which the last successful request ended. The epoch if there was none.
  std::chrono::system_clock::time_point last_success{};
  int64_t num_batches = 0;
  CountAndTime success, fail, queue, copy_in, compute, copy_out;
  // By the number of requests in a batch.
  std::map<int64_t, BatchSizeStatistics> by_batch_size;
};

// Thread-safe.
class Statistics final : public Observer {
 public:
  // Makes room for the figures of each model, and does not keep `models`.
  explicit Statistics(const ModelRegistry& models) : entries_(models.models().size()) {}

  // REQUIRES: `model` is one of these models. So are the models of all reports.
  ModelStatistics Get(const Model& model) const;

  void RequestFinished(const RequestRecord& record) override;
  void RequestSent(const Model*, std::chrono::nanoseconds, std::chrono::nanoseconds) override {}
  void BatchFinished(const BatchRecord& record) override;
  void DeviceFailed(int, DeviceError) override {}

 private:
  struct alignas(64) Entry {
    mutable absl::Mutex mutex;
    ModelStatistics figures ABSL_GUARDED_BY(mutex);
  };
  std::vector<Entry> entries_;  // by Model::index
};

}  // namespace swiglu::server
