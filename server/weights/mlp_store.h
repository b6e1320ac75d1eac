// SPDX-License-Identifier: Apache-2.0
//
// All MLPs that the server offers: their layers, the current weights of each, and how far the
// loading of their weights is.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "server/core/mlp_figures.h"
#include "server/core/weights.h"
#include "server/weights/load_record.h"
#include "server/weights/mlp_files.h"
#include "server/weights/mlp_layer.h"
#include "server/weights/mlp_spec.h"
#include "server/weights/weights_loader.h"

namespace swiglu::server {

// One MLP that the user named.
struct OfferedMlp {
  MlpSpec spec;
  // Constant, and so are the models that are made of it. New weights must fit it.
  std::vector<MlpLayer> layers;
  std::unique_ptr<const MlpFiles> files;  // nullptr once all layers are loaded
  absl::Mutex slots_mutex;                // of all `slots`
  std::deque<WeightsSlot> slots;          // one for each of `layers`
  LoadRecord loads;
};

// Thread-safe, but only one thread may call `Load` and `Reload`.
class MlpStore {
 public:
  // Opens the files of every MLP, as MlpFiles::Open does, and fails like it. Reads no weights.
  static absl::StatusOr<std::unique_ptr<MlpStore>> Open(const std::vector<MlpSpec>& specs);

  MlpStore(const MlpStore&) = delete;
  MlpStore& operator=(const MlpStore&) = delete;

  // In the order of the specs. Each element keeps its address.
  const std::deque<OfferedMlp>& mlps() const { return mlps_; }

  // Loads all layers, `num_threads` (1 or more) of them at a time, and fills their slots. Logs the
  // progress. Blocks. Returns the first error, which names the MLP; then some slots may be empty.
  // After `Cancel`, returns CANCELLED as soon as no thread packs a layer or waits for a disk. Once
  // all layers are loaded, it closes the files.
  absl::Status Load(WeightsLoader& loader, int num_threads);

  // Opens the files of `mlps()[index]` anew, loads all layers, `num_threads` (1 or more) of them at
  // a time, and then replaces the weights of all slots at the same moment. Logs what has changed,
  // or why nothing has. Blocks. If it fails, every slot keeps its weights. FAILED_PRECONDITION if
  // the files have other layers than `layers`; otherwise fails like MlpFiles::Open and
  // WeightsLoader::Load. After `Cancel`, or once `is_wanted` returns false, ends like `Load` with
  // CANCELLED. Any of its threads may call `is_wanted`. REQUIRES: `Load` has returned OK.
  absl::Status Reload(size_t index, WeightsLoader& loader, int num_threads,
                      absl::FunctionRef<bool()> is_wanted);

  // Ends a `Load` or `Reload`, also a later one.
  void Cancel() { cancelled_.store(true); }
  bool is_cancelled() const { return cancelled_.load(); }

  // Whether all slots are filled.
  bool is_loaded() const { return num_loaded_.load() == num_layers_; }
  // The bytes of all layers as they lie in the files, and how many of them `Load` has read.
  int64_t total_bytes() const { return total_bytes_; }
  int64_t loaded_bytes() const { return loaded_bytes_.load(); }

 private:
  using WeightsPtr = std::shared_ptr<const Weights>;

  // One layer to load.
  struct Task {
    OfferedMlp* mlp = nullptr;
    size_t index = 0;  // of the layer
  };

  MlpStore() = default;

  // The parts of `Load` and `Reload`.
  absl::Status LoadLayer(WeightsLoader& loader, const Task& task);
  absl::StatusOr<std::vector<WeightsPtr>> LoadAnew(OfferedMlp& mlp, WeightsLoader& loader,
                                                   int num_threads,
                                                   absl::FunctionRef<bool()> is_wanted);

  std::deque<OfferedMlp> mlps_;
  int64_t num_layers_ = 0;   // of all MLPs; constant after `Open`
  int64_t total_bytes_ = 0;  // likewise
  std::atomic<int64_t> num_loaded_{0};
  std::atomic<int64_t> loaded_bytes_{0};
  std::atomic<bool> cancelled_{false};
};

// The figures of `mlp`. Thread-safe.
MlpFigures FiguresOf(const OfferedMlp& mlp);

}  // namespace swiglu::server
