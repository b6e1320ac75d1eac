// SPDX-License-Identifier: Apache-2.0
//
// Threads that take a turn, call, and count: each with one call that blocks, or with several
// futures.
#include <cstddef>
#include <deque>
#include <memory>
#include <thread>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/types/optional.h"
#include "client/bench/library_slot.h"
#include "client/bench/load.h"
#include "swiglu/connection.h"

namespace swiglu::bench {
namespace {

// The slots of a caller whose calls have ended. Thread-safe.
class EndedSlots {
 public:
  void Add(LibrarySlot* slot) {
    absl::MutexLock lock(&mutex_);
    slots_.push_back(slot);
  }

  // Blocks until there is one, and moves all to `slots`, which is empty.
  void Take(std::vector<LibrarySlot*>* slots) {
    absl::MutexLock lock(&mutex_);
    mutex_.Await(absl::Condition(this, &EndedSlots::HasOne));
    slots_.swap(*slots);
  }

 private:
  bool HasOne() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return !slots_.empty(); }

  absl::Mutex mutex_;
  std::vector<LibrarySlot*> slots_ ABSL_GUARDED_BY(mutex_);
};

// A thread, and the calls that it has under way.
class Caller {
 public:
  explicit Caller(size_t num_sizes) : tally_(num_sizes) {}

  void AddSlot(size_t index, const LoadOptions* options, const std::vector<RequestData>* data,
               client::Connection* connection) {
    const size_t place = slots_.size();
    slots_.emplace_back(index, options, data, connection,
                        [this, place] { ended_.Add(&slots_[place]); });
  }

  void Start(Pace* pace, bool by_futures) {
    thread_ = std::thread(
        [this, pace, by_futures] { by_futures ? StartCalls(*pace) : MakeCalls(*pace); });
  }

  const Tally& Finish() {
    thread_.join();
    return tally_;
  }

 private:
  // One call after the other.
  void MakeCalls(Pace& pace) {
    LibrarySlot& slot = slots_.front();
    while (const absl::optional<Turn> turn = pace.Next()) {
      slot.Call(*turn);
      slot.Count(pace, &tally_);
    }
  }

  // A call in every slot. A slot that is free gets the next turn.
  void StartCalls(Pace& pace) {
    std::vector<LibrarySlot*> free;
    for (LibrarySlot& slot : slots_) free.push_back(&slot);
    size_t num_under_way = 0;
    while (const absl::optional<Turn> turn = pace.Next()) {
      LibrarySlot* const slot = free.back();
      free.pop_back();
      if (!slot->Start(*turn)) ended_.Add(slot);
      ++num_under_way;
      if (free.empty()) num_under_way -= CountEnded(pace, &free);
    }
    while (num_under_way > 0) num_under_way -= CountEnded(pace, &free);
  }

  // Waits until a call has ended. Counts those that have, and adds their slots to `free`. Returns
  // how many.
  size_t CountEnded(const Pace& pace, std::vector<LibrarySlot*>* free) {
    std::vector<LibrarySlot*> ended;
    ended_.Take(&ended);
    for (LibrarySlot* const slot : ended) slot->Count(pace, &tally_);
    free->insert(free->end(), ended.begin(), ended.end());
    return ended.size();
  }

  EndedSlots ended_;
  std::deque<LibrarySlot> slots_;
  Tally tally_;
  std::thread thread_;
};

class LibraryLoad final : public Load {
 public:
  LibraryLoad(const LoadOptions& options, const std::vector<RequestData>* data,
              std::shared_ptr<client::Connection> connection)
      : options_(options), num_sizes_(data->size()), connection_(std::move(connection)) {
    const int num_callers =
        options_.num_callers > 0 ? options_.num_callers : options_.num_in_flight;
    for (int i = 0; i < num_callers; ++i) callers_.emplace_back(num_sizes_);
    for (int i = 0; i < options_.num_in_flight; ++i) {
      callers_[static_cast<size_t>(i % num_callers)].AddSlot(static_cast<size_t>(i), &options_,
                                                             data, connection_.get());
    }
  }

  void Start(Pace* pace) override {
    for (Caller& caller : callers_) caller.Start(pace, options_.num_callers > 0);
  }

  Tally Finish() override {
    Tally tally(num_sizes_);
    for (Caller& caller : callers_) tally.Merge(caller.Finish());
    return tally;
  }

 private:
  const LoadOptions options_;
  const size_t num_sizes_;
  std::deque<Caller> callers_;
  // Goes first: it waits until its threads have left the callers.
  const std::shared_ptr<client::Connection> connection_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Load>> CreateLibraryLoad(const LoadOptions& options,
                                                        const std::vector<RequestData>* data) {
  absl::StatusOr<std::shared_ptr<client::Connection>> connection =
      client::MakeConnection(options.server, {.num_connections = options.num_connections,
                                              .max_attempts = options.max_attempts,
                                              .coalesce_bytes = options.coalesce_bytes,
                                              .hedge_delay = options.hedge_delay,
                                              .streams = options.streams,
                                              .spin = options.spin});
  if (!connection.ok()) return connection.status();
  return MakeLibraryLoad(options, data, *std::move(connection));
}

std::unique_ptr<Load> MakeLibraryLoad(const LoadOptions& options,
                                      const std::vector<RequestData>* data,
                                      std::shared_ptr<client::Connection> connection) {
  return std::make_unique<LibraryLoad>(options, data, std::move(connection));
}

}  // namespace swiglu::bench
