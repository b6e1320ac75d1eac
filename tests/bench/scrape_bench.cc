// SPDX-License-Identifier: Apache-2.0
//
// What a reading of the metrics page costs, alone and while threads report requests without a
// pause, and what it costs them: the time of a report with nobody reading and with readings all the
// time, in turns.
//
//   scrape_bench [THREADS] [SECONDS]      2 threads and 2 seconds a turn, unless given
#include <time.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <thread>
#include <utility>
#include <vector>

#include "server/metrics/metrics_page.h"
#include "tests/metrics/example_gpu.h"

namespace swiglu::server {
namespace {

using BenchClock = std::chrono::steady_clock;
using Times = std::vector<double>;  // microseconds

constexpr int kNumTurns = 3;

double Since(BenchClock::time_point start) {
  return std::chrono::duration<double, std::micro>(BenchClock::now() - start).count();
}

// Of the calling thread, in microseconds.
double ProcessorTime() {
  timespec time{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) * 1e6 + static_cast<double>(time.tv_nsec) * 1e-3;
}

void Print(const char* what, Times times) {
  std::sort(times.begin(), times.end());
  const auto quantile = [&times](double q) {
    return times[std::min(times.size() - 1, static_cast<size_t>(q * times.size()))];
  };
  std::printf("%-34s %9zu times, us: median %8.2f  p99 %8.2f  p99.99 %9.2f  most %9.2f\n", what,
              times.size(), quantile(0.5), quantile(0.99), quantile(0.9999), times.back());
}

// One request, as the data path reports it.
void Report(Observer& observer, const Model& model) {
  RequestRecord record;
  record.model = &model;
  record.bytes_in = record.bytes_out = 1 << 16;
  record.num_elements = 1 << 14;
  record.times.receive = record.times.compute = std::chrono::microseconds(50);
  observer.RequestFinished(record);
  observer.RequestSent(&model, std::chrono::microseconds(200), std::chrono::microseconds(20));
}

// A load of threads that report until its end.
class Load {
 public:
  Load(Observer& observer, int num_threads) : times_(num_threads) {
    for (Times& times : times_) {
      threads_.emplace_back([this, &observer, &times] {
        while (!stopping_.load(std::memory_order_relaxed)) {
          const BenchClock::time_point start = BenchClock::now();
          Report(observer, Models().front());
          times.push_back(Since(start));
        }
      });
    }
  }

  // Ends the load; the time of each report.
  Times Stop() {
    stopping_.store(true);
    Times all;
    for (size_t i = 0; i < threads_.size(); ++i) {
      threads_[i].join();
      all.insert(all.end(), times_[i].begin(), times_[i].end());
    }
    return all;
  }

 private:
  std::atomic<bool> stopping_{false};
  std::vector<Times> times_;
  std::vector<std::thread> threads_;
};

void ReadFor(const char* what, const MetricsPage& page, std::chrono::seconds duration) {
  Times times;
  Times processor_times;
  const BenchClock::time_point end = BenchClock::now() + duration;
  while (BenchClock::now() < end) {
    const BenchClock::time_point start = BenchClock::now();
    const double processor_start = ProcessorTime();
    page.Render();
    processor_times.push_back(ProcessorTime() - processor_start);
    times.push_back(Since(start));
  }
  Print(what, std::move(times));
  Print("  of it on a core", std::move(processor_times));
}

void Run(int num_threads, std::chrono::seconds duration) {
  PrometheusObserver observer{ModelRegistry()};
  const MetricsPage page(&observer, GaugesOfOneGpu(), {"1.2.3", "abc", "13.0"});
  std::printf("page of %zu bytes; %d threads report; %ld s a turn\n", page.Render().size(),
              num_threads, static_cast<long>(duration.count()));
  for (int turn = 0; turn < kNumTurns; ++turn) {
    ReadFor("a reading, alone", page, duration);
    Load alone(observer, num_threads);
    std::this_thread::sleep_for(duration);
    Print("a report, nobody reads", alone.Stop());
    Load beside(observer, num_threads);
    ReadFor("a reading, under load", page, duration);
    Print("a report, readings all the time", beside.Stop());
  }
}

}  // namespace
}  // namespace swiglu::server

int main(int argc, char** argv) {
  const int num_threads = argc > 1 ? std::atoi(argv[1]) : 2;
  const int seconds = argc > 2 ? std::atoi(argv[2]) : 2;
  swiglu::server::Run(std::max(num_threads, 1), std::chrono::seconds(std::max(seconds, 1)));
}
