// SPDX-License-Identifier: Apache-2.0
//
// Events around calls, around graphs and around rows of calls.
#include "tests/bench/cuda_timer.h"

#include <vector>

#include "tests/bench/cuda_host.h"

namespace swiglu::bench {
namespace {

double Elapsed(cudaEvent_t begin, cudaEvent_t end) {
  float ms = 0;
  Check(cudaEventElapsedTime(&ms, begin, end));
  return ms * 1e3;
}

// Times `work` on `stream` and waits for it.
double TimeOf(cudaStream_t stream, const std::function<void()>& work) {
  cudaEvent_t begin, end;
  Check(cudaEventCreate(&begin));
  Check(cudaEventCreate(&end));
  Check(cudaEventRecord(begin, stream));
  work();
  Check(cudaEventRecord(end, stream));
  Check(cudaStreamSynchronize(stream));
  const double us = Elapsed(begin, end);
  cudaEventDestroy(begin);
  cudaEventDestroy(end);
  return us;
}

}  // namespace

Timer::Timer() { Check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking)); }
Timer::~Timer() { cudaStreamDestroy(stream_); }

Summary Timer::Events(int count, const Launch& launch) const {
  std::vector<cudaEvent_t> events(2 * count);
  for (cudaEvent_t& event : events) Check(cudaEventCreate(&event));
  for (int i = 0; i < 10; ++i) launch(i);
  for (int i = 0; i < count; ++i) {
    Check(cudaEventRecord(events[2 * i], stream_));
    launch(i);
    Check(cudaEventRecord(events[2 * i + 1], stream_));
  }
  Check(cudaStreamSynchronize(stream_));
  std::vector<double> times(count);
  for (int i = 0; i < count; ++i) times[i] = Elapsed(events[2 * i], events[2 * i + 1]);
  for (cudaEvent_t event : events) cudaEventDestroy(event);
  return Summarize(times);
}

Summary Timer::Graph(int count, const Launch& launch) const {
  constexpr int kReplays = 21;
  cudaGraph_t graph;
  cudaGraphExec_t executable;
  Check(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeThreadLocal));
  for (int i = 0; i < count; ++i) launch(i);
  Check(cudaStreamEndCapture(stream_, &graph));
  Check(cudaGraphInstantiate(&executable, graph, 0));
  std::vector<double> times;
  for (int i = 0; i <= kReplays; ++i) {
    const double us = TimeOf(stream_, [&] { Check(cudaGraphLaunch(executable, stream_)); });
    if (i > 0) times.push_back(us / count);
  }
  cudaGraphExecDestroy(executable);
  cudaGraphDestroy(graph);
  return Summarize(times);
}

Summary Timer::InARow(int count, const Launch& launch) const {
  constexpr int kRuns = 7;
  std::vector<double> times;
  for (int run = 0; run <= kRuns; ++run) {
    const double us = TimeOf(stream_, [&] {
      for (int i = 0; i < count; ++i) launch(i);
    });
    if (run > 0) times.push_back(us / count);
  }
  return Summarize(times);
}

}  // namespace swiglu::bench
