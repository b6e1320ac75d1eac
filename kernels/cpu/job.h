// SPDX-License-Identifier: Apache-2.0
//
// Work that a CpuPool shares among its threads. What a job consists of is the caller's matter: the
// pool only takes pieces of it and computes them. Private to the kernels.
#pragma once

#include <cstdint>

#include "kernels/cpu/split.h"

namespace swiglu {

class CpuPool;

namespace internal {

// A run of a job's items: of elements, or of what else the job counts.
struct Piece {
  Position begin;
  int64_t count;
};

// The work of one call, which lives on its caller's stack until all of it is computed. The pool's
// mutex guards it, except that Compute needs no lock: several threads call it at once, each with a
// piece of its own.
class Job {
 public:
  // Of `num_items` items, which is more than 0.
  explicit Job(int64_t num_items) : num_left_(num_items) {}
  virtual ~Job() = default;
  Job(const Job&) = delete;
  Job& operator=(const Job&) = delete;

  // Computes all items of a piece. It cannot fail.
  virtual void Compute(const Piece& piece) const = 0;

  bool has_pieces() const { return num_left_ > 0; }
  bool is_done() const { return num_left_ == 0 && num_taken_ == 0; }

  // REQUIRES: has_pieces().
  Piece Take() {
    const Piece piece = Next(num_left_);
    num_left_ -= piece.count;
    ++num_taken_;
    return piece;
  }

  // A piece that was taken has been computed.
  void GiveBack() { --num_taken_; }

 private:
  // The piece behind the one that was returned last, of at most `num_left` items.
  virtual Piece Next(int64_t num_left) = 0;

  int64_t num_left_;   // items in no piece yet
  int num_taken_ = 0;  // pieces being computed
};

// Computes `job` on the calling thread and those threads of `pool` that are free. Returns when all
// of it is computed. Allocates nothing once the pool has run as many jobs at the same time.
void RunOn(CpuPool& pool, Job& job);

// Returns the number of threads that `pool` was made for.
int NumThreads(const CpuPool& pool);

}  // namespace internal
}  // namespace swiglu
