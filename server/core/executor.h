// SPDX-License-Identifier: Apache-2.0
//
// The interface between batching and a device. An executor takes a closed batch and calls back
// once, when the batch is finished. `server/device` implements the interface, and tests implement
// fakes. The interface depends neither on requests nor on gRPC or CUDA.
#pragma once

#include <algorithm>
#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "server/core/model.h"
#include "server/core/phase_times.h"
#include "server/core/slab.h"

namespace swiglu::server {

// Reads inputs that lie in several pieces. Reads each input in order, and each byte once. Only one
// thread at a time may use it.
class InputReader {
 public:
  virtual ~InputReader() = default;
  // Copies the next `size_bytes` of input k to `target`. REQUIRES: input k has that many bytes
  // left.
  virtual void Read(int k, std::byte* target, size_t size_bytes) = 0;
};

// One request's part of a batch. Each pointer points to `num_elements` consecutive elements of the
// model's dtype. The pointers follow the order of `Model::inputs` and `Model::outputs`. Unused
// pointers are nullptr. Output k is input k (in place), or it overlaps no input and no other
// output.
struct Segment {
  std::array<const std::byte*, kMaxTensors> inputs{};
  std::array<std::byte*, kMaxTensors> outputs{};
  int64_t num_elements = 0;
  // Where the gradients of the weights go, in the order of `Model::gradients`; nullptr: not wanted.
  // Each is of FP32, and lies in a slab or in a region of the host or of a device. In a region, it
  // has only the alignment of its element. The executor writes the sums over the tokens of this
  // segment alone, or zeros if there are none. If any is wanted, the batch has no other segment,
  // the segment may have any number of rows, and an output that is nullptr is not wanted either.
  std::array<float*, kMaxGradients> gradients{};
  // Provides the inputs whose pointers are nullptr. Only for an executor whose `TakesReaders`
  // returns true.
  InputReader* reader = nullptr;

  bool has_gradients() const {
    return std::any_of(gradients.begin(), gradients.end(),
                       [](const float* gradient) { return gradient != nullptr; });
  }
};

// Stands for the CPU wherever a device is given as a number.
inline constexpr int kCpuDevice = -1;

// Where the tensors of a request or batch lie.
struct Placement {
  // The CUDA device that has some of them in its memory; kCpuDevice: all are in host memory.
  int device = kCpuDevice;
  // All of them are in the memory of that device.
  bool is_resident = false;

  bool operator==(const Placement&) const = default;
};

// A closed batch: segments of one model, of any lengths (0 is legal).
struct Batch {
  // What to compute; never nullptr while an executor has the batch.
  const Model* model = nullptr;
  std::vector<Segment> segments = {};
  // The weights to use, if the model has any. They live until `done` is called.
  const Weights* weights = nullptr;
  // Where the tensors lie; the same for every segment.
  Placement placement = {};
  // The server holds no other request, so the thread that calls `Run` may wait for the batch.
  bool is_alone = false;
};

// Whether the batch is a request for gradients of weights.
inline bool WantsGradients(const Batch& batch) {
  return batch.segments.size() == 1 && batch.segments.front().has_gradients();
}

// The elements of all segments together.
inline int64_t NumElements(const Batch& batch) {
  int64_t sum = 0;
  for (const Segment& segment : batch.segments) sum += segment.num_elements;
  return sum;
}

// How a batch's bytes reached the arithmetic. The metric label `path`.
enum class Path : uint8_t { kCpu, kMapped, kStaged, kRegion };
inline constexpr int kNumPaths = 4;

// The result of one batch. On error the outputs are unspecified.
struct Execution {
  absl::Status status;
  Path path = Path::kCpu;
  // A CUDA ordinal or kCpuDevice. Meaningless if the batch was given to no device.
  int device = kCpuDevice;
  PhaseTimes times;
};

// Runs closed batches on one kind of device. Thread-safe. Its destructor waits for its batches.
class Executor {
 public:
  using Done = absl::AnyInvocable<void(const Execution&)>;

  virtual ~Executor() = default;

  // The most batches that may be in flight at once on all devices together, except resident ones
  // and those of MLPs. At least 1. The batcher never exceeds this limit.
  virtual int num_lanes() const = 0;

  // How many of these lanes take only large batches; fewer than `num_lanes`. So small batches never
  // take all lanes, but large ones may. The batcher sees to it.
  virtual int num_large_lanes() const { return 0; }

  // A batch is large if its inputs have at least so many bytes.
  virtual int64_t large_batch_bytes() const { return 0; }

  // The most batches of models of MLPs that may be in flight at once. They do not count among those
  // of `num_lanes`, so neither kind of batch waits for the other. 0: this executor takes none. The
  // batcher never exceeds this limit.
  virtual int num_mlp_lanes() const { return 0; }

  // The most resident batches (`Placement::is_resident`) that may be in flight at once on each
  // device. 0: this executor takes none. The batcher never exceeds this limit.
  virtual int num_resident_lanes() const { return 0; }

  // The most segments that one batch may have. At least 1.
  virtual int max_segments() const = 0;

  // The most input bytes that a batch of element-wise models should have, so that other batches do
  // not wait long. Never 0. (For other models, see Model::max_batch_rows.)
  // A request with more input bytes is cut into chunks of at most this size. The limit does not
  // apply to requests whose tensors are all in a device's memory.
  virtual int64_t max_batch_bytes() const = 0;

  // True if inputs in several pieces are read as fast as inputs in one piece.
  virtual bool TakesReaders() const { return false; }

  // Runs `batch`, or starts it and returns. Calls `done` exactly once, on any thread, possibly
  // before `Run` returns, with no lock held. REQUIRES: `batch` and its memory outlive the call of
  // `done`; `num_lanes` and `num_resident_lanes` leave room for it. If a device fails for good, the
  // batches that it runs end with INTERNAL: "device 0 failed". Batches that were not running yet,
  // and all later ones, end with UNAVAILABLE.
  virtual void Run(const Batch& batch, Done done) = 0;

  // How long threads have waited in `Run` for batches that were alone until now, all together. They
  // waited busily, so this is processor time that was no work.
  virtual std::chrono::nanoseconds caller_wait_time() const { return {}; }

  // False from the time at which a device has failed for good.
  virtual bool healthy() const = 0;

  // The pool of the memory that this executor's batches read and write fastest.
  virtual SlabPool& slab_pool() = 0;

  // For logs and `swiglu status`: "cpu (AVX3, 2 lanes)", "cuda:0 NVIDIA H100 80GB HBM3".
  virtual std::string description() const = 0;
};

}  // namespace swiglu::server
