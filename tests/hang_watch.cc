// SPDX-License-Identifier: Apache-2.0
//
// Ends a test program whose test hangs, and says which one that is; linked into programs whose
// tests wait for threads. Without it, all that is known of a hang is the program's time-out.
#include <gtest/gtest.h>

#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <mutex>
#include <string>
#include <thread>

namespace {

// Far more than any test takes, under the sanitizers and on a busy machine too, and less than the
// programs' time-outs in CMakeLists.txt.
constexpr std::chrono::seconds kPatience{100};

class HangWatch final : public testing::EmptyTestEventListener {
 public:
  void OnTestStart(const testing::TestInfo& test) override {
    name_ = std::string(test.test_suite_name()) + "." + test.name();
    is_over_ = false;
    watcher_ = std::thread([this] { Watch(); });
  }
  void OnTestEnd(const testing::TestInfo&) override {
    {
      const std::lock_guard lock(mutex_);
      is_over_ = true;
    }
    changed_.notify_one();
    watcher_.join();
  }

 private:
  void Watch() {
    std::unique_lock lock(mutex_);
    if (changed_.wait_for(lock, kPatience, [this] { return is_over_; })) return;
    std::fprintf(stderr, "[  HANGS   ] %s has not ended after %d seconds\n", name_.c_str(),
                 static_cast<int>(kPatience.count()));
    std::abort();
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  bool is_over_ = false;
  std::string name_;
  std::thread watcher_;
};

[[maybe_unused]] const bool kWatched = [] {
  testing::UnitTest::GetInstance()->listeners().Append(new HangWatch);  // which owns it
  return true;
}();

}  // namespace
