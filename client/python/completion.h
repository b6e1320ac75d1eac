// SPDX-License-Identifier: Apache-2.0
//
// How calls that do not block end, without Python: threads of the client library end them here, and
// never wait for the GIL. So they may run while the interpreter ends.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/inlined_vector.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "swiglu/cancellation.h"
#include "swiglu/future.h"
#include "swiglu/options.h"
#include "swiglu/tensor.h"

namespace swiglu::python {

// Wakes an event loop: a descriptor that can be read while there is something to take.
// Thread-safe.
class Notifier {
 public:
  // Throws std::system_error if there is no descriptor left.
  Notifier();
  ~Notifier();
  Notifier(const Notifier&) = delete;
  Notifier& operator=(const Notifier&) = delete;

  int descriptor() const { return descriptor_; }

  void Push(int64_t id);

  // The ids since the last time. The descriptor is then not readable until the next Push.
  std::vector<int64_t> Take();

 private:
  const int descriptor_;
  absl::Mutex mutex_;
  std::vector<int64_t> ids_ ABSL_GUARDED_BY(mutex_);
};

// What is known of a call without the server's help.
struct CallNotes {
  bool is_pushed_back = false;  // the server asks to wait before the next attempt
  int num_messages = 0;         // sent for it
};

// How one call ended.
struct CallEnd {
  absl::Status status;
  std::string weights_sha256;  // empty if the model has no weights
  client::CallStatistics statistics;
  absl::InlinedVector<client::Tensor, 1> tensors;  // results that the library has made
  CallNotes notes;
  client::Cancellation cancellation;
};

// Some calls that are waited for together. Thread-safe; the ends may be read when it is ready.
class Completion {
 public:
  explicit Completion(size_t num_calls)
      : num_calls_(num_calls), ends_(new CallEnd[num_calls]), num_left_(num_calls) {
    if (num_calls == 0) is_ready_.store(true, std::memory_order_relaxed);
  }

  size_t num_calls() const { return num_calls_; }
  CallEnd& end(size_t call) const { return ends_[call]; }

  // One call has ended, and its end is filled.
  void EndOne();

  // Whether all calls have ended.
  bool IsReady() const { return is_ready_.load(std::memory_order_acquire); }
  // Blocks for `timeout` at most. Whether all calls have ended.
  bool WaitFor(absl::Duration timeout);

  // Asks all calls to end.
  void Cancel();

  // Whether this process was forked from the one of the calls, which never end here.
  bool IsOfParent() const { return process_ != client::FutureState::CurrentProcess(); }

  // Gives `id` to `notifier` when all calls have ended, or at once.
  void Watch(std::shared_ptr<Notifier> notifier, int64_t id);

 private:
  const int process_ = client::FutureState::CurrentProcess();
  const size_t num_calls_;
  const std::unique_ptr<CallEnd[]> ends_;
  std::atomic<size_t> num_left_;
  std::atomic<bool> is_ready_{false};
  absl::Mutex mutex_;
  absl::CondVar ready_;
  std::vector<std::pair<std::shared_ptr<Notifier>, int64_t>> watchers_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace swiglu::python
