// SPDX-License-Identifier: Apache-2.0
//
// The families of the weights of MLPs.
#include <map>
#include <utility>

#include "absl/time/time.h"
#include "server/metrics/family.h"
#include "server/metrics/prometheus_observer.h"

namespace swiglu::server {
namespace {

static_assert(metrics::kLoadResults.size() == kNumLoadResults);

using Families = std::vector<prometheus::MetricFamily>;

// Adds the family of a metric whose only label is the MLP.
template <typename Value>
void AddFamily(const metrics::Metric& metric, const std::vector<LabelledMlp>& mlps, Value value,
               Families& families) {
  prometheus::MetricFamily family = MakeFamily(metric);
  for (const LabelledMlp& mlp : mlps) {
    AddSeries(family, metric, {mlp.model}, static_cast<double>(value(mlp.figures)));
  }
  families.push_back(std::move(family));
}

prometheus::MetricFamily LoadsFamily(const std::vector<LabelledMlp>& mlps) {
  prometheus::MetricFamily family = MakeFamily(metrics::kMlpLoads);
  for (const LabelledMlp& mlp : mlps) {
    for (size_t i = 0; i < metrics::kLoadResults.size(); ++i) {
      AddSeries(family, metrics::kMlpLoads, {mlp.model, metrics::kLoadResults[i]},
                static_cast<double>(mlp.figures.loads.num_ended[i]));
    }
  }
  return family;
}

prometheus::MetricFamily WeightBytesFamily(const std::vector<LabelledMlp>& mlps,
                                           const std::vector<int>& devices) {
  prometheus::MetricFamily family = MakeFamily(metrics::kMlpWeightBytes);
  for (const LabelledMlp& mlp : mlps) {
    std::map<int, int64_t> bytes;
    for (const int device : devices) bytes[device] = 0;
    for (const WeightsPlace& place : mlp.figures.places) bytes[place.device] += place.size_bytes;
    for (const auto& [device, size_bytes] : bytes) {
      AddSeries(family, metrics::kMlpWeightBytes, {mlp.model, DeviceLabel(device)},
                static_cast<double>(size_bytes));
    }
  }
  return family;
}

}  // namespace

Families MakeMlpFamilies(const std::vector<LabelledMlp>& mlps, const std::vector<int>& devices) {
  Families families;
  if (mlps.empty()) return families;
  families.push_back(WeightBytesFamily(mlps, devices));
  AddFamily(
      metrics::kMlpLoading, mlps,
      [](const MlpFigures& mlp) { return mlp.loads.is_loading ? 1 : 0; }, families);
  AddFamily(
      metrics::kMlpLoadedBytes, mlps, [](const MlpFigures& mlp) { return mlp.loads.loaded_bytes; },
      families);
  AddFamily(
      metrics::kMlpLoadSize, mlps, [](const MlpFigures& mlp) { return mlp.size_bytes; }, families);
  families.push_back(LoadsFamily(mlps));
  AddFamily(
      metrics::kMlpLastLoad, mlps,
      [](const MlpFigures& mlp) {
        return absl::ToDoubleSeconds(mlp.loads.last_success - absl::UnixEpoch());
      },
      families);
  AddFamily(
      metrics::kMlpLastLoadDuration, mlps,
      [](const MlpFigures& mlp) {
        return std::chrono::duration<double>(mlp.loads.last_duration).count();
      },
      families);
  return families;
}

}  // namespace swiglu::server
