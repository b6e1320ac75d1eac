// SPDX-License-Identifier: Apache-2.0
//
// Which devices get the weights of a layer. Plain values, without CUDA.
#pragma once

#include <algorithm>
#include <cstdint>
#include <numeric>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "server/log/log.h"

namespace swiglu::server {

// Spreads layers over devices by their bytes. Thread-safe.
class WeightsPlacement {
 public:
  // `devices`: numbers by which the caller knows them. REQUIRES: 1 to devices.size() replicas.
  WeightsPlacement(std::vector<int> devices, int num_replicas)
      : devices_(std::move(devices)), num_replicas_(num_replicas), bytes_(devices_.size()) {
    CHECK(num_replicas >= 1 && num_replicas <= static_cast<int>(devices_.size()));
  }

  // The devices for a layer of `size_bytes`: those that were given the fewest bytes until now; of
  // equal ones, those that come first.
  std::vector<int> Place(int64_t size_bytes) {
    absl::MutexLock lock(&mutex_);
    std::vector<size_t> order(devices_.size());
    std::iota(order.begin(), order.end(), size_t{0});
    std::stable_sort(order.begin(), order.end(),
                     [this](size_t a, size_t b)
                         ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return bytes_[a] < bytes_[b]; });
    std::vector<int> chosen;
    for (int i = 0; i < num_replicas_; ++i) {
      const size_t position = order[static_cast<size_t>(i)];
      bytes_[position] += size_bytes;
      chosen.push_back(devices_[position]);
    }
    return chosen;
  }

 private:
  const std::vector<int> devices_;
  const int num_replicas_;
  absl::Mutex mutex_;
  std::vector<int64_t> bytes_ ABSL_GUARDED_BY(mutex_);  // given to each of devices_
};

}  // namespace swiglu::server
