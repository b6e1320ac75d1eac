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

// Products of the same shape, as one step.
void Multiply(Dtype dtype, std::span<const Product> products, CpuPool& pool) {
  const int64_t num_units = NumUnits(products[0]);
  const int64_t mul_adds = products[0].depth * products[0].num_outputs * products[0].num_tokens;
  const auto sharing = mul_adds >= kMinSharedMulAdds ? Sharing::kShared : Sharing::kAlone;
  const auto compute = [&](int64_t item) {
    internal::ComputeUnit(dtype, products[static_cast<size_t>(item / num_units)], item % num_units);
  };
  ForEachItem(pool, sharing, static_cast<int64_t>(products.size()) * num_units, compute);
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

int64_t LanesBytes(int64_t num_tokens, int64_t intermediate) {
  return RoundUp(num_tokens * intermediate * int64_t{sizeof(uint16_t)});
}

}  // namespace

// Tiles of x and then of h; e and g.
int64_t CpuMlpWeights::ForwardWorkspaceBytes(int64_t num_tokens) const {
  return TilesBytes(num_tokens, packed_->hidden, packed_->intermediate) +
         2 * LanesBytes(num_tokens, packed_->intermediate);
}

// Tiles of x and then of df; tiles of dy and then of de; dw, e and g.
int64_t CpuMlpWeights::BackwardWorkspaceBytes(int64_t num_tokens) const {
  return 2 * TilesBytes(num_tokens, packed_->hidden, packed_->intermediate) +
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
  if (status != MlpStatus::kOk || m == 0) return status;
  status = internal::CheckTensors({call.x, call.dy, call.dx});
  if (status == MlpStatus::kOk) status = CheckWorkspace(call.workspace, BackwardWorkspaceBytes(m));
  if (status != MlpStatus::kOk) return status;

  Placer placer(call.workspace.data());
  auto* tiles = placer.Place<float>(m * std::max(w.hidden, w.intermediate));
  auto* more_tiles = placer.Place<float>(m * std::max(w.hidden, w.intermediate));
  auto* dw = placer.Place<uint16_t>(m * w.intermediate);
  auto* e = placer.Place<uint16_t>(m * w.intermediate);
  auto* g = placer.Place<uint16_t>(m * w.intermediate);

  FillTiles(w.dtype, call.x, m, w.hidden, tiles, pool);
  FillTiles(w.dtype, call.dy, m, w.hidden, more_tiles, pool);
  Multiply(w.dtype,
           std::array{Product{{w.gate, tiles}, {}, w.hidden, w.intermediate, m, e},
                      Product{{w.up, tiles}, {}, w.hidden, w.intermediate, m, g},
                      Product{{w.down_back, more_tiles}, {}, w.hidden, w.intermediate, m, dw}},
           pool);
  // In place, as "swiglu/segment.h" says: df replaces e, and de replaces g.
  const BackwardSegment segment{dw, e, g, dw, e, g, m * w.intermediate};
  (void)pool.Backward(w.dtype, {&segment, 1});
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
