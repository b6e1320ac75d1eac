// SPDX-License-Identifier: Apache-2.0
//
// Prints a page in which every kind of series has moved, for tools that judge the format.
#include <chrono>
#include <iostream>

#include "server/metrics/metrics_page.h"
#include "tests/metrics/example_mlp.h"

namespace swiglu::server {
namespace {

void PrintPage() {
  const ModelRegistry models(ExampleMlpModels());
  PrometheusObserver observer{models};
  Gauges gauges = GaugesOfOneGpuAndMlp();
  gauges.queued_requests = [] { return 3; };
  gauges.memory_budget_bytes = [] { return 68719476736.0; };
  for (const Model* model : models.models()) {
    RequestRecord record;
    record.model = model;
    record.bytes_in = 123456789012;
    record.times.compute = std::chrono::microseconds(123);
    observer.RequestFinished(record);
    observer.RequestSent(model, std::chrono::milliseconds(3), std::chrono::microseconds(7));
  }
  for (const Model* model : models.models()) {
    BatchRecord batch;
    batch.model = model;
    observer.BatchFinished(batch);
  }
  observer.RetryAdvised();
  observer.DeviceFailed(0, DeviceError::kOther);
  const MetricsPage page(&observer, gauges, {"1.2.3", "quote\" and \\ backslash", "none"});
  std::cout << page.Render();
}

}  // namespace
}  // namespace swiglu::server

int main() { swiglu::server::PrintPage(); }
