// SPDX-License-Identifier: Apache-2.0
//
// Opens all MLPs, and loads their layers on several threads.
#include "server/weights/mlp_store.h"

#include <algorithm>
#include <string>
#include <system_error>
#include <thread>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "server/log/log.h"

namespace swiglu::server {
namespace {

// The tasks that are left, for all threads of one `Load`.
template <typename Task>
class TaskList {
 public:
  explicit TaskList(std::vector<Task> tasks) : tasks_(std::move(tasks)) {}

  // The next task; nullptr if none is left or one has failed.
  const Task* Next() {
    absl::MutexLock lock(&mutex_);
    return status_.ok() && next_ < tasks_.size() ? &tasks_[next_++] : nullptr;
  }

  // The first error counts.
  void Fail(absl::Status status) {
    absl::MutexLock lock(&mutex_);
    if (status_.ok()) status_ = std::move(status);
  }

  absl::Status status() {
    absl::MutexLock lock(&mutex_);
    return status_;
  }

 private:
  const std::vector<Task> tasks_;
  absl::Mutex mutex_;
  size_t next_ ABSL_GUARDED_BY(mutex_) = 0;
  absl::Status status_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace

absl::StatusOr<std::unique_ptr<MlpStore>> MlpStore::Open(const std::vector<MlpSpec>& specs) {
  std::unique_ptr<MlpStore> store(new MlpStore);
  for (const MlpSpec& spec : specs) {
    absl::StatusOr<std::unique_ptr<const MlpFiles>> files = MlpFiles::Open(spec);
    if (!files.ok()) return files.status();
    OfferedMlp& mlp = store->mlps_.emplace_back();
    mlp.spec = spec;
    mlp.files = *std::move(files);
    for (size_t i = 0; i < mlp.files->layers().size(); ++i) mlp.slots.emplace_back();
    store->num_layers_ += static_cast<int64_t>(mlp.slots.size());
    store->total_bytes_ += mlp.files->size_bytes();
  }
  return store;
}

absl::Status MlpStore::Load(WeightsLoader& loader, int num_threads) {
  std::vector<Task> tasks;
  for (OfferedMlp& mlp : mlps_) {
    for (size_t index = 0; index < mlp.slots.size(); ++index) tasks.push_back({&mlp, index});
  }
  const size_t num_used = std::min(tasks.size(), static_cast<size_t>(num_threads));
  TaskList<Task> list(std::move(tasks));
  const auto work = [&] {
    while (const Task* const task = list.Next()) {
      if (absl::Status status = LoadLayer(loader, *task); !status.ok()) {
        list.Fail(std::move(status));
      }
    }
  };
  std::vector<std::thread> threads;
  try {
    for (size_t i = 1; i < num_used; ++i) threads.emplace_back(work);
  } catch (const std::system_error&) {
    // Those that there are load all layers.
  }
  work();
  for (std::thread& thread : threads) thread.join();
  absl::Status status = list.status();
  if (status.ok()) {
    for (OfferedMlp& mlp : mlps_) mlp.files.reset();
  }
  return status;
}

absl::Status MlpStore::LoadLayer(WeightsLoader& loader, const Task& task) {
  const std::string& name = task.mlp->spec.name;
  const MlpLayer& layer = task.mlp->files->layers()[task.index];
  int64_t counted = 0;  // bytes of this layer
  const auto count = [this, &counted](int64_t bytes) {
    loaded_bytes_.fetch_add(bytes - std::exchange(counted, bytes));
    return is_cancelled() ? absl::CancelledError("the loading of weights was cancelled")
                          : absl::OkStatus();
  };
  absl::Status begun = count(0);
  if (!begun.ok()) return begun;
  absl::StatusOr<std::shared_ptr<const Weights>> weights =
      loader.Load(*task.mlp->files, task.index, nullptr, count);
  if (!weights.ok()) {
    return absl::Status(weights.status().code(),
                        absl::StrCat("mlp ", name, ": ", weights.status().message()));
  }
  LOG(INFO, "mlp {}: layer {} is loaded, sha256 {}; {} of {} MB of all weights", name, layer.number,
      (*weights)->sha256(), loaded_bytes() / 1'000'000, total_bytes() / 1'000'000);
  task.mlp->slots[task.index].Set(*std::move(weights));
  num_loaded_.fetch_add(1);
  return absl::OkStatus();
}

}  // namespace swiglu::server
