// SPDX-License-Identifier: Apache-2.0
//
// The weights of an MLP layer in the memory of a device, and the place where requests find them.
// What the weights look like is known only to the executor that made them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"

namespace swiglu::server {

// A copy of weights: the device that has it, a CUDA ordinal or kCpuDevice, and its bytes there.
struct WeightsPlace {
  int device = 0;
  int64_t size_bytes = 0;
};

// The weights of one layer, ready for batches, in one or more equal copies. Immutable. Its memory
// is given back with the last reference, so requests in work keep the weights with which they
// began.
class Weights {
 public:
  virtual ~Weights() = default;
  Weights(const Weights&) = delete;
  Weights& operator=(const Weights&) = delete;

  // The SHA-256 of the layer's matrices as they lie in the file (gate, up, down), in lower-case
  // hexadecimal digits.
  const std::string& sha256() const { return sha256_; }

  // The copies, each on a device of its own.
  const std::vector<WeightsPlace>& places() const { return places_; }

 protected:
  explicit Weights(std::string sha256, std::vector<WeightsPlace> places = {})
      : sha256_(std::move(sha256)), places_(std::move(places)) {}

 private:
  const std::string sha256_;
  const std::vector<WeightsPlace> places_;
};

// The current weights of one layer. Thread-safe.
class WeightsSlot {
 public:
  WeightsSlot() : mutex_(&own_mutex_) {}
  // Slots with the same `mutex`, which must outlive them, can change together.
  explicit WeightsSlot(absl::Mutex* mutex) : mutex_(mutex) {}

  // nullptr before the first `Set`.
  std::shared_ptr<const Weights> Get() const {
    absl::MutexLock lock(mutex_);
    return weights_;
  }

  void Set(std::shared_ptr<const Weights> weights) {
    absl::MutexLock lock(mutex_);
    weights_.swap(weights);
  }

  // Exchanges the weights of `slots[i]` and `weights[i]`, all at the same moment: a thread that has
  // seen the new weights of one slot sees the new weights of every slot. REQUIRES: the slots have
  // the same mutex, and there are as many weights as slots, at least one.
  static void Exchange(std::deque<WeightsSlot>& slots,
                       std::vector<std::shared_ptr<const Weights>>& weights)
      ABSL_NO_THREAD_SAFETY_ANALYSIS {
    absl::MutexLock lock(slots.front().mutex_);
    for (size_t i = 0; i < slots.size(); ++i) slots[i].weights_.swap(weights[i]);
  }

 private:
  absl::Mutex own_mutex_;
  absl::Mutex* const mutex_;  // `own_mutex_`, or one that several slots share
  std::shared_ptr<const Weights> weights_ ABSL_GUARDED_BY(*mutex_);
};

}  // namespace swiglu::server
