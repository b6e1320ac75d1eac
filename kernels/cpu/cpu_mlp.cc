// SPDX-License-Identifier: Apache-2.0
//
// The MLP: checks a call, places its tensors in the workspace, and runs the steps of forward and
// backward one after the other. The threads of the pool share each step.
#include "swiglu/cpu_mlp.h"

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

#include "kernels/cpu/job.h"
#include "kernels/cpu/mlp_packed.h"
#include "kernels/cpu/mlp_product.h"
#include "swiglu/segment.h"

namespace swiglu {
namespace {

using internal::Gradient;
using internal::Product;

// Work with fewer multiply-adds is not worth waking threads for.
constexpr int64_t kMinSharedMulAdds = int64_t{1} << 20;
// The same for filling tiles, in elements.
constexpr int64_t kMinSharedElements = int64_t{1} << 18;
// Pieces for each thread: if a thread is late or slow, the others take some of its pieces.
constexpr int64_t kMlpPiecesPerThread = 8;

constexpr int64_t RoundUp(int64_t bytes) {
  constexpr auto kStep = static_cast<int64_t>(kMlpAlignment);
  return internal::CeilDiv(bytes, kStep) * kStep;
}

// Items that are computed by `compute`, which takes an item's number.
template <class Function>
class ItemsJob final : public internal::Job {
 public:
  ItemsJob(int64_t num_items, int num_threads, const Function& compute)
      : Job(num_items),
        piece_items_(std::max<int64_t>(1, num_items / (kMlpPiecesPerThread * num_threads))),
        compute_(compute) {}

  void Compute(const internal::Piece& piece) const override {
    const int64_t first = piece.begin.element;
    for (int64_t item = first; item < first + piece.count; ++item) compute_(item);
  }

 private:
  internal::Piece Next(int64_t num_left) override {
    const internal::Piece piece{{0, next_}, std::min(piece_items_, num_left)};
    next_ += piece.count;
    return piece;
  }

  const int64_t piece_items_;
  const Function& compute_;
  int64_t next_ = 0;  // where the next piece begins
};

// Whether a step is worth sharing.
enum class Sharing { kAlone, kShared };

// Calls `compute` with each number below `num_items`, which is more than 0.
template <class Function>
void ForEachItem(CpuPool& pool, Sharing sharing, int64_t num_items, const Function& compute) {
  const int num_threads = sharing == Sharing::kShared ? internal::NumThreads(pool) : 1;
  if (num_threads == 1) {
    for (int64_t item = 0; item < num_items; ++item) compute(item);
    return;
  }
  ItemsJob<Function> job(num_items, num_threads, compute);
  internal::RunOn(pool, job);
}

// The tokens of `tokens`, [num_tokens][depth], as tiles.
void FillTiles(Dtype dtype, const void* tokens, int64_t num_tokens, int64_t depth, float* tiles,
               CpuPool& pool) {
  const auto sharing =
      num_tokens * depth >= kMinSharedElements ? Sharing::kShared : Sharing::kAlone;
  const auto fill = [&](int64_t tile) {
    internal::FillTile(dtype, static_cast<const uint16_t*>(tokens), num_tokens, depth, tile, tiles);
  };
  ForEachItem(pool, sharing, internal::CeilDiv(num_tokens, internal::kTileTokens), fill);
}

// The columns of `matrix`, [num_tokens][num_rows], as tiles of rows.
void FillTransposedTiles(Dtype dtype, const void* matrix, int64_t num_tokens, int64_t num_rows,
                         float* tiles, CpuPool& pool) {
  const auto sharing =
      num_tokens * num_rows >= kMinSharedElements ? Sharing::kShared : Sharing::kAlone;
  const auto fill = [&](int64_t tile) {
    internal::FillTransposedTile(dtype, static_cast<const uint16_t*>(matrix), num_tokens, num_rows,
                                 tile, tiles);
  };
  ForEachItem(pool, sharing, internal::CeilDiv(num_rows, internal::kTileTokens), fill);
}

// `matrix`, [num_tokens][num_columns], as panels.
void FillPanels(const void* matrix, int64_t num_tokens, int64_t num_columns, uint16_t* panels,
                CpuPool& pool) {
  const auto sharing =
      num_tokens * num_columns >= kMinSharedElements ? Sharing::kShared : Sharing::kAlone;
  const auto fill = [&](int64_t panel) {
    internal::FillPanel(static_cast<const uint16_t*>(matrix), num_tokens, num_columns, panel,
                        panels);
  };
  ForEachItem(pool, sharing, internal::CeilDiv(num_columns, internal::kPanelOutputs), fill);
}

Sharing SharingOf(int64_t mul_adds) {
  return mul_adds >= kMinSharedMulAdds ? Sharing::kShared : Sharing::kAlone;
}

// Products of the same shape, as one step.
void Multiply(Dtype dtype, std::span<const Product> products, CpuPool& pool) {
  const int64_t num_units = NumUnits(products[0]);
  const int64_t mul_adds = products[0].depth * products[0].num_outputs * products[0].num_tokens;
  const auto compute = [&](int64_t item) {
    internal::ComputeUnit(dtype, products[static_cast<size_t>(item / num_units)], item % num_units);
  };
  ForEachItem(pool, SharingOf(mul_adds), static_cast<int64_t>(products.size()) * num_units,
              compute);
}

void Accumulate(Dtype dtype, const Gradient& gradient, CpuPool& pool) {
  const int64_t mul_adds = gradient.num_tokens * gradient.num_rows * gradient.num_columns;
  const auto compute = [&](int64_t unit) { internal::ComputeGradientUnit(dtype, gradient, unit); };
  ForEachItem(pool, SharingOf(mul_adds), NumUnits(gradient), compute);
}

// Places tensors in a workspace, one behind the other.
class Placer {
 public:
  explicit Placer(std::byte* begin) : next_(begin) {}

  template <class Element>
  Element* Place(int64_t num_elements) {
    std::byte* const at = next_;
    next_ += RoundUp(num_elements * static_cast<int64_t>(sizeof(Element)));
    return reinterpret_cast<Element*>(at);
  }

 private:
  std::byte* next_;
};

MlpStatus CheckWorkspace(std::span<const std::byte> workspace, int64_t num_bytes) {
  if (workspace.data() == nullptr) return MlpStatus::kNullPointer;
  if (reinterpret_cast<uintptr_t>(workspace.data()) % kMlpAlignment != 0) {
    return MlpStatus::kMisaligned;
  }
  const bool is_enough = workspace.size() >= static_cast<size_t>(num_bytes);
  return is_enough ? MlpStatus::kOk : MlpStatus::kWorkspaceTooSmall;
}

MlpStatus CheckCount(int64_t num_tokens) {
  return num_tokens >= 0 && num_tokens <= kMaxMlpTokens ? MlpStatus::kOk : MlpStatus::kBadCount;
}

int64_t TilesBytes(int64_t num_tokens, int64_t hidden, int64_t intermediate) {
  return RoundUp(num_tokens * std::max(hidden, intermediate) * int64_t{sizeof(float)});
}

// Room for tiles, or for 16-bit panels, which are filled up to whole panels.
int64_t TilesOrPanelsBytes(int64_t num_tokens, int64_t hidden, int64_t intermediate) {
  const int64_t panels = internal::PackedElements(num_tokens, std::max(hidden, intermediate)) *
                         int64_t{sizeof(uint16_t)};
  return std::max(TilesBytes(num_tokens, hidden, intermediate), RoundUp(panels));
}

int64_t LanesBytes(int64_t num_tokens, int64_t intermediate) {
  return RoundUp(num_tokens * intermediate * int64_t{sizeof(uint16_t)});
}

struct MlpShape {
  Dtype dtype;
  int64_t hidden, intermediate, num_tokens;
};

// What the gradients of the weights are computed from, and memory for rows and columns.
struct GradientTensors {
  const void *x, *dy;           // [M][H]
  const uint16_t *h, *df, *de;  // [M][I]
  float* tiles;
  uint16_t* panels;
};

// Adds the terms of all tokens to the sums. One matrix after the other, because they share memory.
void AddGradients(const MlpShape& shape, const GradientTensors& tensors,
                  const MlpWeightGradients& gradients, CpuPool& pool) {
  const int64_t m = shape.num_tokens, h = shape.hidden, i = shape.intermediate;
  const auto first =
      gradients.sums == MlpSums::kBegin ? internal::FirstSums::kZero : internal::FirstSums::kMemory;
  // The sums of `rows`, [M][num_rows], times the columns that the panels have.
  const auto add = [&](const void* rows, int64_t num_rows, int64_t num_columns, float* out) {
    if (out == nullptr) return;
    FillTransposedTiles(shape.dtype, rows, m, num_rows, tensors.tiles, pool);
    Accumulate(shape.dtype, {tensors.panels, tensors.tiles, m, num_rows, num_columns, first, out},
               pool);
  };
  if (gradients.down != nullptr) FillPanels(tensors.h, m, i, tensors.panels, pool);
  add(tensors.dy, h, i, gradients.down);
  if (gradients.gate == nullptr && gradients.up == nullptr) return;
  FillPanels(tensors.x, m, h, tensors.panels, pool);
  add(tensors.de, i, h, gradients.gate);
  add(tensors.df, i, h, gradients.up);
}

// Refuses pointers to gradients that are not aligned to their element. A null pointer is aligned.
MlpStatus CheckGradients(const MlpWeightGradients& gradients) {
  for (const float* gradient : {gradients.gate, gradients.up, gradients.down}) {
    if (reinterpret_cast<uintptr_t>(gradient) % sizeof(float) != 0) return MlpStatus::kMisaligned;
  }
  return MlpStatus::kOk;
}

// Sums of no terms.
void ClearSums(const MlpWeightGradients& gradients, int64_t num_weights) {
  if (gradients.sums == MlpSums::kContinue) return;
  for (float* gradient : {gradients.gate, gradients.up, gradients.down}) {
    if (gradient != nullptr) std::fill_n(gradient, num_weights, 0.0f);
  }
}

}  // namespace

// Tiles of x and then of h; e and g.
int64_t CpuMlpWeights::ForwardWorkspaceBytes(int64_t num_tokens) const {
  return TilesBytes(num_tokens, packed_->hidden, packed_->intermediate) +
         2 * LanesBytes(num_tokens, packed_->intermediate);
}

// Tiles of x and then of df; tiles of dy and then of de; dw, e and g. The gradients of the weights
// use the same memory again: tiles of dy, de and df; panels of h and x.
int64_t CpuMlpWeights::BackwardWorkspaceBytes(int64_t num_tokens) const {
  return TilesBytes(num_tokens, packed_->hidden, packed_->intermediate) +
         TilesOrPanelsBytes(num_tokens, packed_->hidden, packed_->intermediate) +
         3 * LanesBytes(num_tokens, packed_->intermediate);
}

MlpStatus CpuMlpWeights::Forward(const MlpForward& call, CpuPool& pool) const {
  const Packed& w = *packed_;
  const int64_t m = call.num_tokens;
  MlpStatus status = CheckCount(m);
  if (status != MlpStatus::kOk || m == 0) return status;
  status = internal::CheckTensors({call.x, call.y});
  if (status == MlpStatus::kOk) status = CheckWorkspace(call.workspace, ForwardWorkspaceBytes(m));
  if (status != MlpStatus::kOk) return status;

  Placer placer(call.workspace.data());
  auto* tiles = placer.Place<float>(m * std::max(w.hidden, w.intermediate));
  auto* e = placer.Place<uint16_t>(m * w.intermediate);
  auto* g = placer.Place<uint16_t>(m * w.intermediate);
  uint16_t* const h = e;

  FillTiles(w.dtype, call.x, m, w.hidden, tiles, pool);
  Multiply(w.dtype,
           std::array{Product{{w.gate, tiles}, {}, w.hidden, w.intermediate, m, e},
                      Product{{w.up, tiles}, {}, w.hidden, w.intermediate, m, g}},
           pool);
  // The segment is without fault, and so is that of backward.
  const ForwardSegment segment{e, g, h, m * w.intermediate};
  (void)pool.Forward(w.dtype, {&segment, 1});
  FillTiles(w.dtype, h, m, w.intermediate, tiles, pool);
  auto* y = static_cast<uint16_t*>(call.y);
  Multiply(w.dtype, std::array{Product{{w.down, tiles}, {}, w.intermediate, w.hidden, m, y}}, pool);
  return MlpStatus::kOk;
}

MlpStatus CpuMlpWeights::Backward(const MlpBackward& call, CpuPool& pool) const {
  const Packed& w = *packed_;
  const int64_t m = call.num_tokens;
  if (w.down_back == nullptr) return MlpStatus::kNotPacked;
  MlpStatus status = CheckCount(m);
  if (status == MlpStatus::kOk) status = CheckGradients(call.gradients);
  if (status != MlpStatus::kOk) return status;
  if (m == 0) {
    ClearSums(call.gradients, w.hidden * w.intermediate);
    return MlpStatus::kOk;
  }
  const bool has_dx = call.dx != nullptr || !call.gradients.has_any();
  status = internal::CheckTensors({call.x, call.dy});
  if (status == MlpStatus::kOk && has_dx) status = internal::CheckTensors({call.dx});
  if (status == MlpStatus::kOk) status = CheckWorkspace(call.workspace, BackwardWorkspaceBytes(m));
  if (status != MlpStatus::kOk) return status;

  Placer placer(call.workspace.data());
  auto* dw = placer.Place<uint16_t>(m * w.intermediate);
  auto* e = placer.Place<uint16_t>(m * w.intermediate);
  auto* g = placer.Place<uint16_t>(m * w.intermediate);
  auto* tiles = placer.Place<float>(m * std::max(w.hidden, w.intermediate));
  auto* more_tiles = placer.Place<float>(m * std::max(w.hidden, w.intermediate));

  FillTiles(w.dtype, call.x, m, w.hidden, tiles, pool);
  FillTiles(w.dtype, call.dy, m, w.hidden, more_tiles, pool);
  Multiply(w.dtype,
           std::array{Product{{w.gate, tiles}, {}, w.hidden, w.intermediate, m, e},
                      Product{{w.up, tiles}, {}, w.hidden, w.intermediate, m, g},
                      Product{{w.down_back, more_tiles}, {}, w.hidden, w.intermediate, m, dw}},
           pool);
  // In place, as "swiglu/segment.h" says: h replaces dw, df replaces e, and de replaces g.
  const BackwardSegment segment{dw, e, g, dw, e, g, m * w.intermediate};
  (void)pool.Backward(w.dtype, {&segment, 1});
  if (call.gradients.has_any()) {
    AddGradients({w.dtype, w.hidden, w.intermediate, m},
                 {call.x, call.dy, dw, e, g, tiles, reinterpret_cast<uint16_t*>(more_tiles)},
                 call.gradients, pool);
  }
  if (!has_dx) return MlpStatus::kOk;
  FillTiles(w.dtype, e, m, w.intermediate, tiles, pool);
  FillTiles(w.dtype, g, m, w.intermediate, more_tiles, pool);
  auto* dx = static_cast<uint16_t*>(call.dx);
  Multiply(w.dtype,
           std::array{Product{
               {w.up_back, tiles}, {w.gate_back, more_tiles}, w.intermediate, w.hidden, m, dx}},
           pool);
  return MlpStatus::kOk;
}

}  // namespace swiglu
