// SPDX-License-Identifier: Apache-2.0
//
// Thresholds, and the cutting of batches into portions.
#include "server/device/launch_plan.h"

#include <algorithm>

#include "server/log/log.h"

namespace swiglu::server {
namespace {

// A kernel on mapped host memory reaches the bus's full rate with 16 to 64 blocks and loses up to a
// quarter of it with thousands.
constexpr int kMappedBlocks = 32;

// Tensors smaller than this, on average, do not keep the copy engines busy.
constexpr int64_t kSmallestCopyBytes = int64_t{1} << 20;

// A batch of up to this much, read and written, is done before another thread has woken up. With
// nothing else in flight its caller has nothing better to do than to wait for it.
constexpr int64_t kMaxCallerLaunchBytes = int64_t{256} << 10;
constexpr int64_t kMaxResidentCallerLaunchBytes = int64_t{64} << 20;  // in device memory
constexpr std::chrono::microseconds kCallerWait{40};
// Longer than a pass forward of 512 tokens over a layer with H = 4096 and I = 11008 takes on an
// H200 (237 us, docs/performance.md). Batches of MLPs with more bytes take longer, so their callers
// do not wait.
constexpr std::chrono::microseconds kMlpCallerWait{250};
constexpr int64_t kMaxMlpCallerWaitBytes = int64_t{8} << 20;

// From here on, a batch in device memory is worth more than the time that its caller takes to
// launch it. Smaller ones come faster than a caller should launch them beside its other work.
constexpr int64_t kMinCallerLaunchBytes = int64_t{1} << 20;

size_t NumTensors(const Model& model) { return model.inputs.size() + model.outputs.size(); }

int64_t NumCopies(const Batch& batch) {
  const int64_t num_filled =
      std::count_if(batch.segments.begin(), batch.segments.end(),
                    [](const Segment& segment) { return segment.num_elements > 0; });
  return num_filled * static_cast<int64_t>(NumTensors(*batch.model));
}

bool IsFasterStaged(const Batch& batch, const LaunchSituation& situation) {
  const int64_t bytes = BatchBytes(batch);
  if (bytes == 0) return false;
  if (situation.resident_work == ResidentWork::kRunning) return true;
  // Backward writes as much as it reads: mapped, it fills both directions by itself.
  if (batch.model->op == Op::kBackward) return false;
  return std::min(bytes, situation.other_bytes) >= kLargeBatchBytes &&
         bytes / NumCopies(batch) >= kSmallestCopyBytes;
}

constexpr size_t RoundDown(size_t bytes) { return bytes / kSlabAlignment * kSlabAlignment; }
constexpr size_t RoundUp(size_t bytes) { return RoundDown(bytes + kSlabAlignment - 1); }

// Fills the buffer to its end before the next portion begins, so that only the last one is smaller.
std::vector<Portion> CutIntoPortions(const Batch& batch, size_t buffer_bytes) {
  const Model& model = *batch.model;
  const size_t num_inputs = model.inputs.size();
  const size_t element_bytes = ElementBytes(model.dtype);
  std::vector<Portion> portions;
  size_t used_bytes = buffer_bytes;  // of the last portion's buffer; there is no portion yet
  // The elements of each input that still fit.
  const auto room_elements = [&] {
    const size_t room_bytes = RoundDown((buffer_bytes - used_bytes) / num_inputs);
    return static_cast<int64_t>(room_bytes / element_bytes);
  };
  for (const Segment& segment : batch.segments) {
    int64_t num_elements = 0;  // of the part
    for (int64_t first = 0; first < segment.num_elements; first += num_elements) {
      if (room_elements() == 0) {
        portions.emplace_back();
        used_bytes = 0;
        CHECK(room_elements() > 0);
      }
      num_elements = std::min(segment.num_elements - first, room_elements());
      const size_t stride = RoundUp(num_elements * element_bytes);
      portions.back().push_back({Part(segment, model, first, num_elements), used_bytes, stride});
      used_bytes += num_inputs * stride;
    }
  }
  return portions;
}

}  // namespace

LaunchPlan PlanLaunch(const Batch& batch, const LaunchSituation& situation) {
  if (!IsElementwise(batch.model->op)) return PlanMlp(batch);
  const bool is_resident = batch.placement.is_resident;
  if (!is_resident && IsFasterStaged(batch, situation)) {
    return PlanStaged(batch, situation.buffer_bytes);
  }
  LaunchPlan plan = is_resident ? LaunchPlan{.path = Path::kRegion} : PlanMapped(kMappedBlocks);
  const int64_t max_bytes = is_resident ? kMaxResidentCallerLaunchBytes : kMaxCallerLaunchBytes;
  if (batch.is_alone && BatchBytes(batch) <= max_bytes) plan.caller_wait = kCallerWait;
  plan.caller_launches =
      plan.caller_wait.count() > 0 || (is_resident && BatchBytes(batch) >= kMinCallerLaunchBytes);
  return plan;
}

LaunchPlan PlanMlp(const Batch& batch) {
  LaunchPlan plan{.path = batch.placement.is_resident ? Path::kRegion : Path::kStaged};
  // Gradients of weights take too long for the caller.
  if (WantsGradients(batch)) return plan;
  if (batch.is_alone && BatchBytes(batch) <= kMaxMlpCallerWaitBytes) {
    plan.caller_wait = kMlpCallerWait;
  }
  plan.caller_launches = plan.caller_wait.count() > 0 || batch.placement.is_resident;
  return plan;
}

LaunchPlan PlanMapped(int max_blocks) { return {.path = Path::kMapped, .max_blocks = max_blocks}; }

LaunchPlan PlanStaged(const Batch& batch, size_t buffer_bytes) {
  CHECK(IsElementwise(batch.model->op));
  LaunchPlan plan{.path = Path::kStaged, .portions = CutIntoPortions(batch, buffer_bytes)};
  CHECK(!plan.portions.empty());
  return plan;
}

Segment Part(const Segment& segment, const Model& model, int64_t first, int64_t num_elements) {
  Segment part = segment;
  const int64_t skipped_bytes = first * ElementBytes(model.dtype);
  // What a reader gives lies nowhere yet.
  if (segment.reader == nullptr) {
    for (size_t k = 0; k < model.inputs.size(); ++k) part.inputs[k] += skipped_bytes;
  }
  for (size_t k = 0; k < model.outputs.size(); ++k) part.outputs[k] += skipped_bytes;
  part.num_elements = num_elements;
  return part;
}

Segment InBuffer(const StagedPart& part, const Model& model, std::byte* buffer) {
  Segment segment;
  segment.num_elements = part.host.num_elements;
  for (size_t k = 0; k < model.inputs.size(); ++k) {
    segment.inputs[k] = buffer + part.place(k);
  }
  for (size_t k = 0; k < model.outputs.size(); ++k) {
    segment.outputs[k] = buffer + part.place(k);
  }
  return segment;
}

int64_t BatchBytes(const Batch& batch) {
  return BytesReadAndWritten(*batch.model, NumElements(batch));
}

}  // namespace swiglu::server
