// SPDX-License-Identifier: Apache-2.0
//
// The CPU kernels beside a triad that moves as many bytes on the same threads, and one core in
// cache. Both sides of a comparison alternate, round by round.
#include "tests/bench/cpu_points.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

#include "swiglu/cpu.h"
#include "swiglu/cpu_pool.h"
#include "tests/bench/mlp_points.h"

namespace swiglu::bench {
namespace {

constexpr int kRounds = 9;
// Threads that run a body together, over and over. Between runs they block, so that they take no
// core from what is measured beside them.
class Team {
 public:
  // The caller of Run is one of the threads.
  explicit Team(int num_threads) : num_threads_(num_threads) {
    for (int i = 1; i < num_threads; ++i) threads_.emplace_back([this, i] { Serve(i); });
  }
  ~Team() {
    {
      const std::lock_guard lock(mutex_);
      stopping_ = true;
    }
    begun_.notify_all();
    for (std::thread& thread : threads_) thread.join();
  }

  // Calls `body` once on each thread, with the thread's index.
  void Run(const std::function<void(int)>& body) {
    {
      const std::lock_guard lock(mutex_);
      body_ = &body;
      num_running_ = num_threads_ - 1;
      ++round_;
    }
    begun_.notify_all();
    body(0);
    std::unique_lock lock(mutex_);
    ended_.wait(lock, [this] { return num_running_ == 0; });
  }
  int size() const { return num_threads_; }

 private:
  void Serve(int index) {
    std::unique_lock lock(mutex_);
    for (int64_t round = 1;; ++round) {
      begun_.wait(lock, [&] { return stopping_ || round_ == round; });
      if (stopping_) return;
      lock.unlock();
      (*body_)(index);
      lock.lock();
      if (--num_running_ == 0) ended_.notify_one();
    }
  }

  const int num_threads_;
  std::mutex mutex_;
  std::condition_variable begun_, ended_;
  int64_t round_ = 0;
  const std::function<void(int)>* body_ = nullptr;  // of this round
  int num_running_ = 0;                             // threads that have not ended this round
  bool stopping_ = false;
  std::vector<std::thread> threads_;
};

// Memory whose pages were first touched by the threads that will use them.
class TeamMemory {
 public:
  TeamMemory(Team& team, size_t num_bytes) : num_bytes_(num_bytes) {
    data_ = static_cast<std::byte*>(std::aligned_alloc(4096, (num_bytes + 4095) / 4096 * 4096));
    team.Run([&](int thread) {
      const size_t begin = num_bytes * thread / team.size();
      const size_t end = num_bytes * (thread + 1) / team.size();
      // Small numbers in every dtype.
      std::memset(data_ + begin, 0x3C, end - begin);
    });
  }
  ~TeamMemory() { std::free(data_); }
  TeamMemory(const TeamMemory&) = delete;
  TeamMemory& operator=(const TeamMemory&) = delete;
  std::byte* data() const { return data_; }

 private:
  std::byte* data_ = nullptr;
  const size_t num_bytes_;
};

double Microseconds(const std::function<void()>& work) {
  const auto begin = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now() - begin)
      .count();
}

// Two works in turn; the first round of each is thrown away.
std::array<Summary, 2> Alternate(const std::function<void()>& a, const std::function<void()>& b) {
  std::vector<double> times[2];
  for (int round = 0; round <= kRounds; ++round) {
    const double us[2] = {Microseconds(a), Microseconds(b)};
    if (round == 0) continue;
    times[0].push_back(us[0]);
    times[1].push_back(us[1]);
  }
  return {Summarize(times[0]), Summarize(times[1])};
}

// a = b + s * c, the compiler's own loop.
void Triad(float* a, const float* b, const float* c, int64_t n) {
  for (int64_t i = 0; i < n; ++i) a[i] = b[i] + 3.0f * c[i];
}

// A triad over three arrays of `n` floats, one behind the other. The threads take piece after
// piece, of the same sizes as the pool's: one that starts late costs both the same.
void TriadOn(Team& team, float* data, int64_t n) {
  const int64_t piece = std::clamp<int64_t>(n / (4 * team.size()) / 16 * 16, 4096, 32768);
  std::atomic<int64_t> next{0};
  team.Run([&](int) {
    for (int64_t begin = 0; (begin = next.fetch_add(piece)) < n;) {
      Triad(data + begin, data + n + begin, data + 2 * n + begin, std::min(piece, n - begin));
    }
  });
}

// Where a call's tensors lie, one behind the other.
struct Call {
  Op op;
  Dtype dtype;
  ForwardSegment forward{};
  BackwardSegment backward{};

  Call(Op op_in, Dtype dtype_in, std::byte* data, int64_t n) : op(op_in), dtype(dtype_in) {
    const size_t bytes = static_cast<size_t>(n) * ElementBytes(dtype);
    std::byte *a = data, *b = data + bytes, *c = data + 2 * bytes;
    forward = {a, b, c, n};
    backward = {a, b, c, a, b, c, n};
  }
  void RunOn(CpuPool& pool) const {
    op == Op::kForward ? pool.Forward(dtype, {&forward, 1}) : pool.Backward(dtype, {&backward, 1});
  }
  void RunAlone() const {
    op == Op::kForward ? ForwardCpu(dtype, {&forward, 1}) : BackwardCpu(dtype, {&backward, 1});
  }
};

// Sizes past the caches, and smaller ones, on all threads, against the triad on as many bytes.
// Backward moves twice the triad's bytes: its time is held against two triads.
void MeasureAllCores(int num_threads, Report& report) {
  Team team(num_threads);
  CpuPool pool(num_threads);
  for (const Op op : kOps) {
    for (const Dtype dtype : kDtypes) {
      for (const int64_t n : {int64_t{1} << 20, int64_t{1} << 23, int64_t{22'544'384},
                              int64_t{1} << 26, int64_t{1} << 28}) {
        const size_t bytes = static_cast<size_t>(n) * ElementBytes(dtype);
        const TeamMemory memory(team, 3 * bytes), triad_memory(team, 3 * bytes);
        const Call call(op, dtype, memory.data(), n);
        const auto triad_n = static_cast<int64_t>(bytes / sizeof(float));
        const int num_triads = op == Op::kForward ? 1 : 2;
        const auto triads = [&] {
          auto* data = reinterpret_cast<float*>(triad_memory.data());
          for (int i = 0; i < num_triads; ++i) TriadOn(team, data, triad_n);
        };
        const auto [ours, theirs] = Alternate([&] { call.RunOn(pool); }, triads);
        report.Add({.section = "cpu, all threads",
                    .op = Name(op),
                    .dtype = Name(dtype),
                    .n = n,
                    .us = ours.median,
                    .spread = ours.spread,
                    .gb_s = BytesMoved(op, dtype, n) / ours.median / 1e3,
                    .baseline = "a triad of as many bytes",
                    .ratio = theirs.median / ours.median});
      }
    }
  }
}

// 4096 elements, which stay in the first two caches, again and again on one core. Backward is in
// place, so that its values soon are zeros: that changes nothing for its speed.
void MeasureOneCore(Report& report) {
  constexpr int64_t kN = 4096;
  constexpr int kCalls = 2000;
  Team team(1);
  for (const Op op : kOps) {
    for (const Dtype dtype : kDtypes) {
      const TeamMemory memory(team, 3 * kN * 4);
      const Call call(op, dtype, memory.data(), kN);
      std::vector<double> times;
      for (int round = 0; round <= kRounds; ++round) {
        const double us = Microseconds([&] {
          for (int i = 0; i < kCalls; ++i) call.RunAlone();
        });
        if (round > 0) times.push_back(us / kCalls);
      }
      const Summary time = Summarize(times);
      const double per_ns = static_cast<double>(kN) / (time.median * 1e3);
      char note[64];
      std::snprintf(note, sizeof(note), "%.2f elements/ns", per_ns);
      report.Add({.section = "cpu, one core in cache",
                  .op = Name(op),
                  .dtype = Name(dtype),
                  .n = kN,
                  .note = note,
                  .us = time.median,
                  .spread = time.spread,
                  .gb_s = BytesMoved(op, dtype, kN) / time.median / 1e3,
                  .baseline = "2 elements/ns",
                  .ratio = per_ns / 2});
    }
  }
}

}  // namespace

void MeasureCpu(const std::string& filter, int num_threads, Report& report) {
  report.AddFact("cpu", std::string(CpuTarget()) + ", " + std::to_string(num_threads) + " threads");
  const auto wanted = [&](const char* section) {
    return std::string(section).find(filter) != std::string::npos;
  };
  if (wanted("cpu, one core in cache")) MeasureOneCore(report);
  if (wanted("cpu, all threads")) MeasureAllCores(num_threads, report);
  if (wanted("mlp")) MeasureMlp(num_threads, report);
}

}  // namespace swiglu::bench
