// SPDX-License-Identifier: Apache-2.0
//
// The fake NVML from a test's side: opened once more, and as good as new.
#pragma once

#include <dlfcn.h>

#include <string>

#include "gtest/gtest.h"
#include "tests/device/fake_nvml.h"

namespace swiglu::server {

// Keeps the library at `path` open; it begins as if nobody had touched it.
class FakeNvmlLibrary {
 public:
  explicit FakeNvmlLibrary(const std::string& path)
      : library_(dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL)) {
    if (library_ == nullptr) {
      ADD_FAILURE() << dlerror();
      return;
    }
    nvml_ = reinterpret_cast<GetFakeNvml>(dlsym(library_, kFakeNvmlSymbol))();
    static_cast<FakeNvmlState&>(*nvml_) = FakeNvmlState();
  }
  ~FakeNvmlLibrary() {
    if (library_ != nullptr) dlclose(library_);
  }
  FakeNvmlLibrary(const FakeNvmlLibrary&) = delete;
  FakeNvmlLibrary& operator=(const FakeNvmlLibrary&) = delete;

  // Changes or reads the controls, with their lock held.
  template <typename Function>
  auto With(Function function) {
    const std::lock_guard<std::mutex> lock(nvml_->mutex);
    nvml_->changed.notify_all();
    return function(*nvml_);
  }

  // Waits until the utilization has been asked for that often since the start.
  void AwaitSamples(int count) {
    std::unique_lock<std::mutex> lock(nvml_->mutex);
    nvml_->changed.wait(lock, [&] { return nvml_->num_samples >= count; });
  }

  // Waits until the library has been stopped that often.
  void AwaitShutdowns(int count) {
    std::unique_lock<std::mutex> lock(nvml_->mutex);
    nvml_->changed.wait(lock, [&] { return nvml_->num_shutdowns >= count; });
  }

 private:
  void* const library_;
  FakeNvml* nvml_ = nullptr;
};

}  // namespace swiglu::server
