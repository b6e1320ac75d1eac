// SPDX-License-Identifier: Apache-2.0
//
// Halves of batches, and the runs of them. See the header.
#include "server/device/batch_split.h"

#include <algorithm>
#include <cstdint>
#include <deque>
#include <memory>
#include <utility>

#include "server/device/launch_plan.h"
#include "server/log/log.h"

namespace swiglu::server {
namespace {

// A batch on its way through a lane in parts. Owned by the part that runs.
class PartialRuns : public std::enable_shared_from_this<PartialRuns> {
 public:
  PartialRuns(Lane& lane, std::function<void(const DeviceFault&)> on_retry, Lane::Finished finished)
      : lane_(lane), on_retry_(std::move(on_retry)), finished_(std::move(finished)) {}

  // Puts the halves of `batch` in front of what is still to run, and runs on; ends with `result`,
  // which it came to, if there are none.
  void RunHalvesOf(const Batch& batch, int num_halvings, const LaneResult& result) {
    auto halves = num_halvings < kMaxHalvings ? Halve(batch) : std::nullopt;
    if (!halves) return finished_(result);
    on_retry_(*result.fault);
    parts_.push_front({std::move(halves->second), num_halvings + 1});
    parts_.push_front({std::move(halves->first), num_halvings + 1});
    RunNext();
  }

 private:
  struct PartialBatch {
    Batch batch;
    int num_halvings;
  };

  void RunNext() {
    running_ = std::move(parts_.front());
    parts_.pop_front();
    // Alone and without the lane's buffer, as little as can be asked of the device.
    lane_.Run(running_.batch, PlanLaunch(running_.batch, {}),
              [self = shared_from_this()](const LaneResult& result) { self->OnFinished(result); });
  }

  void OnFinished(const LaneResult& result) {
    if (IsWorthRetrying(result)) {
      const PartialBatch part = std::move(running_);
      return RunHalvesOf(part.batch, part.num_halvings, result);
    }
    if (result.fault) return finished_(result);
    sum_.execution.path = result.execution.path;
    sum_.execution.times += result.execution.times;
    if (parts_.empty()) return finished_(sum_);
    RunNext();
  }

  Lane& lane_;
  const std::function<void(const DeviceFault&)> on_retry_;
  Lane::Finished finished_;
  std::deque<PartialBatch> parts_;  // still to run, in order
  PartialBatch running_{};
  LaneResult sum_;
};

}  // namespace

std::optional<std::pair<Batch, Batch>> Halve(const Batch& batch) {
  const Model& model = *batch.model;
  CHECK(IsElementwise(model.op));
  const int64_t cut_elements = CutElements(model);
  int64_t wanted = NumElements(batch) / 2;
  std::pair<Batch, Batch> halves{{batch.model, {}}, {batch.model, {}}};
  auto& [first, second] = halves;
  first.placement = second.placement = batch.placement;
  for (const Segment& segment : batch.segments) {
    // A short segment is not cut; it goes where it is wanted, and the first one to the first half.
    int64_t num_first = std::min(segment.num_elements, wanted) / cut_elements * cut_elements;
    if (segment.num_elements <= wanted || (first.segments.empty() && num_first == 0)) {
      num_first = segment.num_elements;
    }
    wanted = num_first < segment.num_elements ? 0 : std::max<int64_t>(wanted - num_first, 0);
    if (num_first > 0) first.segments.push_back(Part(segment, model, 0, num_first));
    if (num_first < segment.num_elements) {
      second.segments.push_back(Part(segment, model, num_first, segment.num_elements - num_first));
    }
  }
  if (first.segments.empty() || second.segments.empty()) return std::nullopt;
  return halves;
}

bool IsWorthRetrying(const LaneResult& result) {
  return result.fault && result.fault->kind == DeviceError::kOutOfMemory &&
         result.fault->outputs == Outputs::kUntouched;
}

void RunInHalves(Lane& lane, const Batch& batch, const LaneResult& result,
                 std::function<void(const DeviceFault&)> on_retry, Lane::Finished finished) {
  std::make_shared<PartialRuns>(lane, std::move(on_retry), std::move(finished))
      ->RunHalvesOf(batch, 0, result);
}

}  // namespace swiglu::server
