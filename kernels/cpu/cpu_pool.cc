// SPDX-License-Identifier: Apache-2.0
//
// The pool: calls that still have pieces to give stand in a list; threads take piece after piece.
#include "swiglu/cpu_pool.h"

#include <algorithm>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <system_error>
#include <thread>
#include <variant>
#include <vector>

#include "kernels/check_segments.h"
#include "kernels/cpu/job.h"
#include "kernels/cpu/split.h"
#include "swiglu/cpu.h"

namespace swiglu {
namespace {

KernelStatus Compute(Dtype dtype, std::span<const ForwardSegment> segments) {
  return ForwardCpu(dtype, segments);
}
KernelStatus Compute(Dtype dtype, std::span<const BackwardSegment> segments) {
  return BackwardCpu(dtype, segments);
}

// Segments. Its items are their elements.
class SegmentsJob final : public internal::Job {
 public:
  template <class Segment>
  SegmentsJob(Dtype dtype, std::span<const Segment> segments, int64_t num_elements, int num_threads)
      : Job(num_elements),
        dtype_(dtype),
        segments_(segments),
        piece_elements_(internal::PieceElements(dtype, num_elements, num_threads)) {}

  // The arguments have been checked: it cannot fail.
  void Compute(const internal::Piece& piece) const override {
    std::visit(
        [&]<class Segment>(std::span<const Segment> all) {
          internal::ForEachPart(dtype_, all, piece.begin, piece.count, [&](const Segment& part) {
            swiglu::Compute(dtype_, std::span(&part, 1));
          });
        },
        segments_);
  }

 private:
  internal::Piece Next(int64_t num_left) override {
    internal::Piece piece{next_, std::min(piece_elements_, num_left)};
    std::visit(
        [&](const auto& all) {
          piece.count = internal::ExtendToCut(all, next_, piece.count);
          next_ = internal::Advance(all, next_, piece.count);
        },
        segments_);
    return piece;
  }

  const Dtype dtype_;
  const std::variant<std::span<const ForwardSegment>, std::span<const BackwardSegment>> segments_;
  const int64_t piece_elements_;  // of a piece, before it is extended to a cut
  internal::Position next_;       // where the next piece begins
};

}  // namespace

class CpuPool::Impl {
 public:
  explicit Impl(int num_threads) : num_threads_(num_threads) {
    try {
      for (int i = 1; i < num_threads; ++i) threads_.emplace_back([this] { Help(); });
    } catch (const std::system_error&) {
      // The system has no more threads: those that there are do the work.
    }
  }

  ~Impl() {
    {
      const std::lock_guard lock(mutex_);
      stopping_ = true;
    }
    changed_.notify_all();
    for (std::thread& thread : threads_) thread.join();
  }

  template <class Segment>
  KernelStatus Run(Dtype dtype, std::span<const Segment> segments) {
    // All of it is checked before any is written.
    const KernelStatus status = internal::CheckSegments(dtype, segments);
    if (status != KernelStatus::kOk) return status;
    const int64_t num_elements = internal::NumElements(segments);
    if (threads_.empty() || !internal::IsLarge<Segment>(dtype, num_elements)) {
      return Compute(dtype, segments);
    }
    SegmentsJob job(dtype, segments, num_elements, num_threads_);
    Finish(job);
    return KernelStatus::kOk;
  }

  // Computes `job` together with the threads that are free.
  void Finish(internal::Job& job) {
    std::unique_lock lock(mutex_);
    jobs_.push_back(&job);
    while (job.has_pieces()) ComputeNext(job, lock);
    finished_.wait(lock, [&] { return job.is_done(); });
  }

  int num_threads() const { return num_threads_; }

 private:
  // Takes the next piece of `job` and computes it with the lock released. Wakes one more thread if
  // there is more to take: that one does likewise, so that waking many takes few steps and no
  // caller pays for all of them. REQUIRES: there is a piece.
  void ComputeNext(internal::Job& job, std::unique_lock<std::mutex>& lock) {
    const internal::Piece piece = job.Take();
    if (!job.has_pieces()) std::erase(jobs_, &job);
    ++num_computing_;
    const bool wake = num_waiting_ > 0 && WantsHelp();
    lock.unlock();
    if (wake) changed_.notify_one();
    job.Compute(piece);
    lock.lock();
    --num_computing_;
    job.GiveBack();
    if (job.is_done()) finished_.notify_all();
  }

  // Callers compute in any case; the pool's threads fill up to the number of threads.
  bool WantsHelp() const { return !jobs_.empty() && num_computing_ < num_threads_; }

  // A thread of the pool. Helps the oldest call.
  void Help() {
    std::unique_lock lock(mutex_);
    while (true) {
      ++num_waiting_;
      changed_.wait(lock, [this] { return stopping_ || WantsHelp(); });
      --num_waiting_;
      if (stopping_) return;
      ComputeNext(*jobs_.front(), lock);
    }
  }

  const int num_threads_;

  std::mutex mutex_;
  std::condition_variable changed_;   // help is wanted, or the pool is stopping
  std::condition_variable finished_;  // a job is done
  std::vector<internal::Job*> jobs_;  // those that have pieces to take, oldest first
  int num_waiting_ = 0;               // threads of the pool that wait
  int num_computing_ = 0;             // pieces being computed, of all jobs
  bool stopping_ = false;
  std::vector<std::thread> threads_;  // the last: they use all of the above
};

CpuPool::CpuPool(int num_threads) : impl_(std::make_unique<Impl>(num_threads)) {}

CpuPool::~CpuPool() = default;

KernelStatus CpuPool::Forward(Dtype dtype, std::span<const ForwardSegment> segments) {
  return impl_->Run(dtype, segments);
}

KernelStatus CpuPool::Backward(Dtype dtype, std::span<const BackwardSegment> segments) {
  return impl_->Run(dtype, segments);
}

namespace internal {

void RunOn(CpuPool& pool, Job& job) { pool.impl_->Finish(job); }

int NumThreads(const CpuPool& pool) { return pool.impl_->num_threads(); }

}  // namespace internal
}  // namespace swiglu
