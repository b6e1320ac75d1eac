// SPDX-License-Identifier: Apache-2.0
//
// Plans how a batch's bytes reach the arithmetic of a GPU, and how the results come back. A lane
// carries the plan out. Pure functions on plain values, without CUDA. docs/adr/0006 has the
// reasons.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "server/core/executor.h"
#include "swiglu/segment.h"

namespace swiglu::server {

// The size of a lane's device buffer: 16 MiB for inputs (twice `max_batch_bytes` of LaneExecutor),
// plus the padding that aligns kMaxSegments segments.
inline constexpr size_t kLaneBufferBytes =
    (size_t{16} << 20) + size_t{swiglu::kMaxSegments} * kMaxTensors * kSlabAlignment;

// A batch is large if it reads and writes at least so many bytes. Large batches are faster through
// copies, as long as another one is in flight beside them: the copies out of one then overlap the
// copies in of the others.
inline constexpr int64_t kLargeBatchBytes = int64_t{4} << 20;

// Whether the device is running kernels on tensors in its own memory. Other kernels that use host
// memory at the same time make these kernels several times slower. Copies hardly slow them down.
enum class ResidentWork : uint8_t { kNone, kRunning };

// The facts that a plan depends on, in addition to the batch.
struct LaunchSituation {
  ResidentWork resident_work = ResidentWork::kNone;
  // Bytes that the other batches in flight on the device read and write.
  int64_t other_bytes = 0;
  // The size of the lane's device buffer: for each input at least kSlabAlignment.
  size_t buffer_bytes = kLaneBufferBytes;
};

// A segment, or a part of one, with a place in a lane's device buffer.
struct StagedPart {
  Segment host;
  size_t offset = 0;
  size_t stride = 0;

  // The position of input k in the buffer, in bytes. Output k replaces it there.
  size_t place(size_t k) const { return offset + k * stride; }
};

// What is in a lane's device buffer at a time; at most kMaxSegments parts.
using Portion = std::vector<StagedPart>;

struct LaunchPlan {
  // kMapped and kRegion: one launch on the tensors in place. kStaged: the portions pass through the
  // lane's device buffer, one after the other. For MLPs, the lane sees to copies itself: kRegion
  // only says that all tensors are in device memory.
  Path path = Path::kMapped;
  // The most blocks of a launch; 0: as many as the work needs.
  int max_blocks = 0;
  // Together they have all elements of the batch, in order. Empty unless the path is kStaged, and
  // for MLPs.
  std::vector<Portion> portions = {};
  // How long the thread that calls `Lane::Run` waits for the batch. After that, the lane's thread
  // waits.
  std::chrono::microseconds caller_wait{0};
  // The thread that calls `Lane::Run` launches the batch, so that the launch does not wait until
  // the lane's thread has woken up. True wherever `caller_wait` is above 0.
  bool caller_launches = false;
};

// The plan for `batch`. A batch without elements is never staged.
LaunchPlan PlanLaunch(const Batch& batch, const LaunchSituation& situation);

// The plan for a batch of an MLP.
LaunchPlan PlanMlp(const Batch& batch);

// A plan of one launch on pinned host memory, with `max_blocks` blocks at most.
LaunchPlan PlanMapped(int max_blocks);

// A staged plan with a device buffer of `buffer_bytes` (see LaunchSituation). REQUIRES: the batch
// has elements, and is not of an MLP.
LaunchPlan PlanStaged(const Batch& batch, size_t buffer_bytes);

// The part of `segment` that has `num_elements` elements from element `first` on. If the inputs
// come from a reader, they have no address yet. In this case the part has the same inputs and the
// same reader as `segment`.
Segment Part(const Segment& segment, const Model& model, int64_t first, int64_t num_elements);

// Returns `part` with its addresses in the device buffer that begins at `buffer`.
Segment InBuffer(const StagedPart& part, const Model& model, std::byte* buffer);

// Bytes that a batch reads and writes.
int64_t BatchBytes(const Batch& batch);

}  // namespace swiglu::server
