// SPDX-License-Identifier: Apache-2.0
//
// Zeros in give zeros out, for every operation and output.
#include "server/device/warm_up.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "swiglu/segment.h"

namespace swiglu::server {
namespace {

// Whether the outputs are aligned to vectors, as the inputs are, or to their elements alone.
enum class Alignment { kVector, kElement };

// What to run of each model. A launch takes another kernel for one segment, for a few, for dozens
// and for the most, and for segments that are not alike; beside resident work a batch is staged.
struct Shape {
  int num_segments;
  Alignment alignment;
  ResidentWork resident_work;
};
constexpr Shape kShapes[] = {
    {1, Alignment::kVector, ResidentWork::kNone},
    {2, Alignment::kVector, ResidentWork::kNone},
    {2, Alignment::kElement, ResidentWork::kNone},
    {32, Alignment::kVector, ResidentWork::kNone},
    {32, Alignment::kElement, ResidentWork::kNone},
    {swiglu::kMaxSegments, Alignment::kVector, ResidentWork::kNone},
    {swiglu::kMaxSegments, Alignment::kElement, ResidentWork::kNone},
    {1, Alignment::kVector, ResidentWork::kRunning},
    {2, Alignment::kElement, ResidentWork::kRunning},
};

// A slot of the slab for each tensor of a segment, inputs first.
constexpr size_t kSlotBytes = 512;
constexpr int64_t kNumElements = 101;  // fits a slot in any dtype, and is no multiple of a vector
constexpr size_t kSegmentBytes = 2 * kMaxTensors * kSlotBytes;
constexpr size_t kSlabBytes = swiglu::kMaxSegments * kSegmentBytes;

Batch MakeBatch(const Model& model, const Shape& shape, std::byte* slab) {
  Batch batch{&model, std::vector<Segment>(shape.num_segments)};
  const size_t shift = shape.alignment == Alignment::kVector ? 0 : ElementBytes(model.dtype);
  for (Segment& segment : batch.segments) {
    std::byte* slot = std::exchange(slab, slab + kSegmentBytes);
    for (size_t k = 0; k < model.inputs.size(); ++k) {
      segment.inputs[k] = std::exchange(slot, slot + kSlotBytes);
    }
    for (size_t k = 0; k < model.outputs.size(); ++k) {
      segment.outputs[k] = std::exchange(slot, slot + kSlotBytes) + shift;
    }
    segment.num_elements = kNumElements;
  }
  return batch;
}

size_t TensorBytes(const Model& model) { return kNumElements * ElementBytes(model.dtype); }

void FillOutputs(const Model& model, const Batch& batch) {
  for (const Segment& segment : batch.segments) {
    for (size_t k = 0; k < model.outputs.size(); ++k) {
      std::memset(segment.outputs[k], 0xFF, TensorBytes(model));
    }
  }
}

bool AllZero(const std::byte* data, size_t size_bytes) {
  return std::all_of(data, data + size_bytes, [](std::byte b) { return b == std::byte{0}; });
}

bool WroteZeros(const Model& model, const Batch& batch) {
  for (const Segment& segment : batch.segments) {
    for (size_t k = 0; k < model.outputs.size(); ++k) {
      if (!AllZero(segment.outputs[k], TensorBytes(model))) return false;
    }
  }
  return true;
}

absl::Status RunAndWait(Lane& lane, const Batch& batch, LaunchPlan plan) {
  absl::Status status;
  absl::Notification finished;
  lane.Run(batch, std::move(plan), [&](const LaneResult& result) {
    status = result.execution.status;
    finished.Notify();
  });
  finished.WaitForNotification();
  return status;
}

}  // namespace

absl::Status WarmUp(Lane& lane, int ordinal, SlabPool& pool, LaneUse use) {
  absl::StatusOr<Slab> slab = pool.Acquire(kSlabBytes);
  if (!slab.ok()) return slab.status();
  for (const Model& model : Models()) {
    for (const Shape& shape : kShapes) {
      if (use == LaneUse::kResident && shape.resident_work == ResidentWork::kRunning) continue;
      std::memset(slab->data.get(), 0, kSlabBytes);
      const Batch batch = MakeBatch(model, shape, slab->data.get());
      FillOutputs(model, batch);
      absl::Status status =
          RunAndWait(lane, batch, PlanLaunch(batch, {.resident_work = shape.resident_work}));
      if (!status.ok()) return status;
      if (!WroteZeros(model, batch)) {
        return absl::InternalError(
            absl::StrCat("device ", ordinal, " computes wrong results for ", model.name));
      }
    }
  }
  return absl::OkStatus();
}

}  // namespace swiglu::server
