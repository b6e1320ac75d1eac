// SPDX-License-Identifier: Apache-2.0
//
// The program swiglu-server with weights that are read only when it is told to: everything is the
// program's own but the loader of weights, which waits before each layer. For mlp_control_test.py.
// Flags are the program's. Lines on stdin command the loader:
//   release   from here on layers are read, and those that wait
//   hold      from here on layers wait again
//   fail      layers that wait fail, and those that come
//   hang      layers that wait no longer ask whether they are wanted, nor do those that come
#include <functional>
#include <iostream>
#include <memory>
#include <string>
#include <thread>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "server/device/device_factory.h"
#include "server/log/log.h"
#include "server/program.h"
#include "server/weights/weights_loader.h"

namespace swiglu::server {
namespace {

// How often a layer that waits asks whether it is still wanted, as one that is read does.
constexpr absl::Duration kAskInterval = absl::Milliseconds(5);

// What the loader is to do. Thread-safe.
class Orders {
 public:
  void Set(const std::string& order) {
    absl::MutexLock lock(&mutex_);
    order_ = order;
  }

  // Waits until layers are to be read, or are to fail. `is_wanted`: OK while to wait.
  absl::Status Await(const std::function<absl::Status()>& is_wanted) {
    const auto may_go = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return order_ != "hold"; };
    const auto hangs_no_more = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
      return order_ != "hang";
    };
    while (true) {
      if (absl::Status status = is_wanted(); !status.ok()) return status;
      absl::MutexLock lock(&mutex_);
      if (!mutex_.AwaitWithTimeout(absl::Condition(&may_go), kAskInterval)) continue;
      if (order_ == "hang") {
        LOG(INFO, "a layer hangs");
        mutex_.Await(absl::Condition(&hangs_no_more));
        continue;
      }
      return order_ == "fail" ? absl::ResourceExhaustedError("no room, as the test wants it")
                              : absl::OkStatus();
    }
  }

 private:
  absl::Mutex mutex_;
  std::string order_ ABSL_GUARDED_BY(mutex_) = "hold";
};

class WaitingLoader final : public WeightsLoader {
 public:
  WaitingLoader(Orders& orders, std::unique_ptr<WeightsLoader> loader)
      : orders_(orders), loader_(std::move(loader)) {}

  absl::StatusOr<std::shared_ptr<const Weights>> Load(
      const MlpFiles& files, size_t index, const Weights* current,
      absl::FunctionRef<absl::Status(int64_t)> on_progress) override {
    LOG(INFO, "layer {} waits", files.layers()[index].number);
    const absl::Status status = orders_.Await([&] { return on_progress(0); });
    if (!status.ok()) return status;
    return loader_->Load(files, index, current, on_progress);
  }

 private:
  Orders& orders_;
  const std::unique_ptr<WeightsLoader> loader_;
};

absl::StatusOr<CreatedExecutor> CreateWithWaitingLoader(const ExecutorOptions& options) {
  absl::StatusOr<CreatedExecutor> created = CreateExecutor(options);
  if (!created.ok()) return created;
  auto& orders = *new Orders();  // for as long as the process lives, as the thread below
  created->weights_loader =
      std::make_unique<WaitingLoader>(orders, std::move(created->weights_loader));
  std::thread([&orders] {
    int num_obeyed = 0;
    for (std::string order; std::getline(std::cin, order);) {
      orders.Set(order);
      LOG(INFO, "obeyed order {}: {}", ++num_obeyed, order);
    }
  }).detach();
  return created;
}

}  // namespace
}  // namespace swiglu::server

int main(int argc, char** argv) {
  return swiglu::server::RunProgram(argc, argv, swiglu::server::CreateWithWaitingLoader);
}
