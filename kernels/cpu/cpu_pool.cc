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

// A run of a job's elements.
struct Piece {
  internal::Position begin;
  int64_t num_elements;
};

// The work of one call, which lives on its caller's stack until all of it is computed. The pool's
// mutex guards it, except that Compute needs no lock.
class Job {
 public:
  template <class Segment>
  Job(Dtype dtype, std::span<const Segment> segments, int64_t num_elements, int num_threads)
      : dtype_(dtype),
        segments_(segments),
        piece_elements_(internal::PieceElements(dtype, num_elements, num_threads)),
        num_left_(num_elements) {}

  bool has_pieces() const { return num_left_ > 0; }
  bool is_done() const { return num_left_ == 0 && num_taken_ == 0; }

  // REQUIRES: has_pieces().
  Piece Take() {
    Piece piece{next_, std::min(piece_elements_, num_left_)};
    std::visit(
        [&](const auto& all) {
          piece.num_elements = internal::ExtendToCut(all, next_, piece.num_elements);
          next_ = internal::Advance(all, next_, piece.num_elements);
        },
        segments_);
    num_left_ -= piece.num_elements;
    ++num_taken_;
    return piece;
  }

  // Its arguments have been checked: it cannot fail.
  void Compute(const Piece& piece) const {
    std::visit(
        [&]<class Segment>(std::span<const Segment> all) {
          internal::ForEachPart(
              dtype_, all, piece.begin, piece.num_elements,
              [&](const Segment& part) { swiglu::Compute(dtype_, std::span(&part, 1)); });
        },
        segments_);
  }

  // A piece that was taken has been computed.
  void GiveBack() { --num_taken_; }

 private:
  const Dtype dtype_;
  const std::variant<std::span<const ForwardSegment>, std::span<const BackwardSegment>> segments_;
  const int64_t piece_elements_;  // of a piece, before it is extended to a cut
  internal::Position next_;       // where the next piece begins
  int64_t num_left_;              // elements in no piece yet
  int num_taken_ = 0;             // pieces being computed
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
    Job job(dtype, segments, num_elements, num_threads_);
    Finish(job);
    return KernelStatus::kOk;
  }

 private:
  // Computes `job` together with the threads that are free.
  void Finish(Job& job) {
    std::unique_lock lock(mutex_);
    jobs_.push_back(&job);
    while (job.has_pieces()) ComputeNext(job, lock);
    finished_.wait(lock, [&] { return job.is_done(); });
  }

  // Takes the next piece of `job` and computes it with the lock released. Wakes one more thread if
  // there is more to take: that one does likewise, so that waking many takes few steps and no
  // caller pays for all of them. REQUIRES: there is a piece.
  void ComputeNext(Job& job, std::unique_lock<std::mutex>& lock) {
    const Piece piece = job.Take();
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
  std::vector<Job*> jobs_;            // those that have pieces to take, oldest first
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

}  // namespace swiglu
