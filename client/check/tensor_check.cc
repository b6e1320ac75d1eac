// SPDX-License-Identifier: Apache-2.0
//
// Threads take chunks by a common counter, and add what they found to a common report.
#include "client/check/tensor_check.h"

#include <algorithm>
#include <atomic>
#include <system_error>
#include <thread>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "client/check/formula.h"

namespace swiglu::check {
namespace {

constexpr int64_t kChunkElements = int64_t{1} << 16;

class CallCheck {
 public:
  explicit CallCheck(const Call& call) : call_(call), whole_(EmptyReport()) {}

  int64_t num_chunks() const { return (num_elements() + kChunkElements - 1) / kChunkElements; }

  // What every thread does.
  void Run() {
    Report found = EmptyReport();
    for (int64_t chunk = next_chunk_.fetch_add(1); chunk < num_chunks();
         chunk = next_chunk_.fetch_add(1)) {
      const int64_t end = std::min((chunk + 1) * kChunkElements, num_elements());
      for (int64_t index = chunk * kChunkElements; index < end; ++index) Look(index, found);
    }
    absl::MutexLock lock(&mutex_);
    Add(found);
  }

  Report TakeReport() {
    absl::MutexLock lock(&mutex_);
    return std::move(whole_);
  }

 private:
  Report EmptyReport() const {
    Report report;
    report.largest_ulp.resize(call_.results.size());
    return report;
  }

  int64_t num_elements() const {
    return static_cast<int64_t>(call_.results[0].size()) / ElementBytes(call_.dtype);
  }

  double Input(size_t number, int64_t index) const {
    return ElementAt(call_.dtype, call_.inputs[number].data(), index);
  }

  void Look(int64_t index, Report& found) const {
    if (call_.inputs.size() == 2) {
      Compare(ExpectForward(call_.dtype, Input(0, index), Input(1, index)), 0, index, found);
      return;
    }
    const ExpectedResults expected =
        ExpectBackward(call_.dtype, Input(0, index), Input(1, index), Input(2, index));
    Compare(expected.h, 0, index, found);
    Compare(expected.df, 1, index, found);
    Compare(expected.de, 2, index, found);
  }

  void Compare(const Expected& expected, size_t result, int64_t index, Report& found) const {
    const double value = ElementAt(call_.dtype, call_.results[result].data(), index);
    const double error_ulp = expected.ErrorUlp(value);
    double& largest_ulp = found.largest_ulp[result];
    largest_ulp = std::max(largest_ulp, error_ulp);
    // The indices of a thread grow.
    if (found.first_wrong.has_value() || expected.IsRight(value)) return;
    found.first_wrong = WrongElement{result, index, value, expected.exact, error_ulp};
  }

  void Add(const Report& found) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    for (size_t k = 0; k < found.largest_ulp.size(); ++k) {
      whole_.largest_ulp[k] = std::max(whole_.largest_ulp[k], found.largest_ulp[k]);
    }
    if (!found.first_wrong.has_value()) return;
    if (whole_.first_wrong.has_value() && whole_.first_wrong->index < found.first_wrong->index) {
      return;
    }
    whole_.first_wrong = found.first_wrong;
  }

  const Call& call_;
  std::atomic<int64_t> next_chunk_{0};
  absl::Mutex mutex_;
  Report whole_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace

Report CheckCall(const Call& call, int num_threads) {
  CallCheck check(call);
  const auto num_others = std::min<int64_t>(num_threads, check.num_chunks()) - 1;
  std::vector<std::thread> others;
  try {
    for (int64_t k = 0; k < num_others; ++k) others.emplace_back([&check] { check.Run(); });
  } catch (const std::system_error&) {
    // The system allows no more threads. Those that run do all the work.
  }
  check.Run();
  for (std::thread& other : others) other.join();
  return check.TakeReport();
}

}  // namespace swiglu::check
