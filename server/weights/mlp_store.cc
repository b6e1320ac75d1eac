// SPDX-License-Identifier: Apache-2.0
//
// Opens all MLPs, loads their layers on several threads, and replaces the weights of an MLP.
#include "server/weights/mlp_store.h"

#include <algorithm>
#include <chrono>
#include <numeric>
#include <string>
#include <system_error>
#include <thread>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "server/log/log.h"
#include "server/weights/layer_match.h"

namespace swiglu::server {
namespace {

// The tasks that are left, for all threads of one load.
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

// Calls `load` for each of `tasks` on this thread and on others, `num_threads` in all. Returns the
// first error; after it, begins no further task.
template <typename Task>
absl::Status ForEach(std::vector<Task> tasks, int num_threads,
                     absl::FunctionRef<absl::Status(const Task&)> load) {
  const size_t num_used = std::min(tasks.size(), static_cast<size_t>(num_threads));
  TaskList<Task> list(std::move(tasks));
  const auto work = [&] {
    while (const Task* const task = list.Next()) {
      if (absl::Status status = load(*task); !status.ok()) list.Fail(std::move(status));
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
  return list.status();
}

absl::Status LoadingCancelled() {
  return absl::CancelledError("the loading of weights was cancelled");
}

// Loads a layer. Calls `on_more` at the beginning, with 0, and whenever the reading of the layer
// has got on by so many bytes. If that returns an error, the load ends with it.
absl::StatusOr<std::shared_ptr<const Weights>> LoadCounted(
    WeightsLoader& loader, const MlpFiles& files, size_t index, const Weights* current,
    absl::FunctionRef<absl::Status(int64_t)> on_more) {
  int64_t counted = 0;
  const auto count = [&](int64_t bytes) { return on_more(bytes - std::exchange(counted, bytes)); };
  absl::Status begun = count(0);
  if (!begun.ok()) return begun;
  return loader.Load(files, index, current, count);
}

// Logs which layers have other weights than before. `old` are the weights that were replaced.
void LogReplaced(const OfferedMlp& mlp, const std::vector<std::shared_ptr<const Weights>>& old,
                 std::chrono::nanoseconds duration) {
  const std::string& name = mlp.spec.name;
  int num_changed = 0;
  for (size_t i = 0; i < old.size(); ++i) {
    const std::string sha256 = mlp.slots[i].Get()->sha256();
    if (sha256 == old[i]->sha256()) continue;
    ++num_changed;
    LOG(INFO, "mlp {}: layer {} has new weights, sha256 {} after {}", name, mlp.layers[i].number,
        sha256, old[i]->sha256());
  }
  LOG(INFO, "mlp {}: the weights were read anew in {:.3f} s; {} of {} layers have changed", name,
      std::chrono::duration<double>(duration).count(), num_changed, old.size());
}

}  // namespace

absl::StatusOr<std::unique_ptr<MlpStore>> MlpStore::Open(const std::vector<MlpSpec>& specs) {
  std::unique_ptr<MlpStore> store(new MlpStore);
  for (const MlpSpec& spec : specs) {
    absl::StatusOr<std::unique_ptr<const MlpFiles>> files = MlpFiles::Open(spec);
    if (!files.ok()) return files.status();
    OfferedMlp& mlp = store->mlps_.emplace_back();
    mlp.spec = spec;
    mlp.files = *std::move(files);
    mlp.layers = mlp.files->layers();
    for (size_t i = 0; i < mlp.layers.size(); ++i) mlp.slots.emplace_back(&mlp.slots_mutex);
    store->num_layers_ += static_cast<int64_t>(mlp.slots.size());
    store->total_bytes_ += mlp.files->size_bytes();
  }
  return store;
}

absl::Status MlpStore::Load(WeightsLoader& loader, int num_threads) {
  std::vector<Task> tasks;
  for (OfferedMlp& mlp : mlps_) {
    mlp.loads.Begin();
    for (size_t index = 0; index < mlp.slots.size(); ++index) tasks.push_back({&mlp, index});
  }
  absl::Status status = ForEach<Task>(std::move(tasks), num_threads,
                                      [&](const Task& task) { return LoadLayer(loader, task); });
  for (OfferedMlp& mlp : mlps_) {
    mlp.loads.End(status);
    if (status.ok()) mlp.files.reset();
  }
  return status;
}

absl::Status MlpStore::LoadLayer(WeightsLoader& loader, const Task& task) {
  const std::string& name = task.mlp->spec.name;
  const MlpLayer& layer = task.mlp->layers[task.index];
  const auto count = [&](int64_t more) {
    loaded_bytes_.fetch_add(more);
    task.mlp->loads.Count(more);
    return is_cancelled() ? LoadingCancelled() : absl::OkStatus();
  };
  absl::StatusOr<WeightsPtr> weights =
      LoadCounted(loader, *task.mlp->files, task.index, nullptr, count);
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

absl::Status MlpStore::Reload(size_t index, WeightsLoader& loader, int num_threads,
                              absl::FunctionRef<bool()> is_wanted) {
  CHECK(index < mlps_.size() && is_loaded());
  OfferedMlp& mlp = mlps_[index];
  LOG(INFO, "mlp {}: the weights are being read anew", mlp.spec.name);
  mlp.loads.Begin();
  absl::StatusOr<std::vector<WeightsPtr>> weights = LoadAnew(mlp, loader, num_threads, is_wanted);
  if (weights.ok()) WeightsSlot::Exchange(mlp.slots, *weights);
  const std::chrono::nanoseconds duration = mlp.loads.End(weights.status());
  if (weights.ok()) {
    LogReplaced(mlp, *weights, duration);
  } else {
    LOG(WARNING, "mlp {}: the weights stay as they were: {}", mlp.spec.name,
        weights.status().message());
  }
  return weights.status();
}

absl::StatusOr<std::vector<MlpStore::WeightsPtr>> MlpStore::LoadAnew(
    OfferedMlp& mlp, WeightsLoader& loader, int num_threads, absl::FunctionRef<bool()> is_wanted) {
  const absl::StatusOr<std::unique_ptr<const MlpFiles>> files = MlpFiles::Open(mlp.spec);
  if (!files.ok()) return files.status();
  absl::Status status = CheckSameLayers(mlp.spec.path, mlp.layers, (*files)->layers());
  if (!status.ok()) return status;
  const auto check_wanted = [&] {
    return is_cancelled() || !is_wanted() ? LoadingCancelled() : absl::OkStatus();
  };
  std::vector<WeightsPtr> loaded(mlp.layers.size());
  std::vector<size_t> indices(loaded.size());
  std::iota(indices.begin(), indices.end(), size_t{0});
  status = ForEach<size_t>(std::move(indices), num_threads, [&](const size_t& index) {
    const auto count = [&](int64_t more) {
      mlp.loads.Count(more);
      return check_wanted();
    };
    const WeightsPtr current = mlp.slots[index].Get();
    absl::StatusOr<WeightsPtr> weights = LoadCounted(loader, **files, index, current.get(), count);
    if (weights.ok()) loaded[index] = *std::move(weights);
    return weights.status();
  });
  if (status.ok()) status = check_wanted();
  if (!status.ok()) return status;
  return loaded;
}

MlpFigures FiguresOf(const OfferedMlp& mlp) {
  MlpFigures figures;
  figures.loads = mlp.loads.figures();
  for (const MlpLayer& layer : mlp.layers) figures.size_bytes += layer.size_bytes();
  for (const WeightsSlot& slot : mlp.slots) {
    const std::shared_ptr<const Weights> weights = slot.Get();
    if (weights == nullptr) continue;
    figures.places.insert(figures.places.end(), weights->places().begin(), weights->places().end());
  }
  return figures;
}

}  // namespace swiglu::server
