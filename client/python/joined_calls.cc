// SPDX-License-Identifier: Apache-2.0
//
// Copies the inputs of calls behind each other, and the outputs back.
#include "client/python/joined_calls.h"

#include <algorithm>
#include <cstring>
#include <deque>
#include <new>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "absl/types/optional.h"
#include "client/python/interruptible_connection.h"
#include "swiglu/tensor.h"

namespace swiglu::python {
namespace {

// The most that the inputs of joined calls have together. A larger message would make the first
// call wait, and the cost of a message is small beside that of its bytes.
constexpr size_t kMostJoinedBytes = size_t{256} << 10;

// The same for a client with hedge_delay, which sends no larger message a second time.
constexpr size_t kMostHedgedBytes = size_t{64} << 10;

// How many joined calls of a list are under way at once. It bounds the memory of their copies.
constexpr int kMostUnderWay = 16;

absl::Status NoMemory() { return absl::ResourceExhaustedError("no memory to join small calls"); }

// Calls of a list, from `first` on.
struct Group {
  size_t first;
  size_t num_calls;
};

// The calls of a list. Those that are joined are started in their order, a few at a time.
// Thread-safe.
class CallList : public std::enable_shared_from_this<CallList> {
 public:
  // The calls end as those of `its_completion`, and have the time of `its_options` together.
  CallList(ClientState& its_client, const client::CallOptions& its_options,
           absl::Span<ModelCall> its_calls, std::shared_ptr<Completion> its_completion)
      : client(its_client),
        calls(its_calls),
        completion(std::move(its_completion)),
        options_(its_options),
        deadline_(client.DeadlineOf(options_, SumBytes(calls))) {}

  // Starts these calls as one when there is room.
  void Join(Group group) {
    try {
      const absl::MutexLock lock(&mutex_);
      waiting_.push_back(group);
    } catch (const std::bad_alloc&) {
      return End(group, NoMemory());
    }
    StartJoined();
  }

  // Call it when calls that were joined have ended.
  void NoteJoinedEnd() {
    {
      const absl::MutexLock lock(&mutex_);
      --num_under_way_;
    }
    StartJoined();
  }

  // Starts one call by itself. Returns what ModelCall::Start does.
  absl::Status StartAlone(size_t call) const {
    return calls[call].Start(client, OptionsNow(), completion, call);
  }

  // Ends calls that have not been started.
  void End(Group group, const absl::Status& status) const {
    for (size_t call = group.first; call < group.first + group.num_calls; ++call) {
      completion->end(call).status = status;
      completion->EndOne();
    }
  }

  client::CallOptions OptionsNow() const { return Until(deadline_, options_); }

  // They live until all calls have ended.
  ClientState& client;
  const absl::Span<ModelCall> calls;
  const std::shared_ptr<Completion> completion;

 private:
  static int64_t SumBytes(absl::Span<const ModelCall> calls) {
    int64_t sum_bytes = 0;
    for (const ModelCall& call : calls) sum_bytes += call.NumBytes();
    return sum_bytes;
  }

  void StartJoined();

  // Whether this thread is the one that starts calls now. There is one at most, which also starts
  // what others find room for. So calls that end while they are started do not pile up on a stack.
  bool BeginStarting() {
    const absl::MutexLock lock(&mutex_);
    return !std::exchange(is_starting_, true);
  }

  // What to start next. nullopt: nothing for now, and the thread has stopped starting.
  absl::optional<Group> Next() {
    const absl::MutexLock lock(&mutex_);
    if (waiting_.empty() || num_under_way_ == kMostUnderWay) {
      is_starting_ = false;
      return absl::nullopt;
    }
    ++num_under_way_;
    const Group group = waiting_.front();
    waiting_.pop_front();
    return group;
  }

  const client::CallOptions options_;
  const absl::Time deadline_;
  absl::Mutex mutex_;
  std::deque<Group> waiting_ ABSL_GUARDED_BY(mutex_);
  int num_under_way_ ABSL_GUARDED_BY(mutex_) = 0;
  bool is_starting_ ABSL_GUARDED_BY(mutex_) = false;
};

// Calls that go to the server as one. It lives until they have ended.
class JoinedCalls : public std::enable_shared_from_this<JoinedCalls> {
 public:
  JoinedCalls(std::shared_ptr<CallList> list, Group group)
      : list_(std::move(list)),
        group_(group),
        calls_(list_->calls.subspan(group.first, group.num_calls)) {}

  void Start() {
    CopyInputs();
    CallEnd& first = list_->completion->end(group_.first);
    const CallScope scope(&first.cancellation, &first.notes);
    const auto done = [self = shared_from_this()](absl::Status status) { self->End(status); };
    const client::Client& client = list_->client.client;
    const client::CallOptions options = list_->OptionsNow();
    client::Tensor* const in = inputs_.data();
    client::Tensor* const out = outputs_.data();
    if (calls_[0].operation() == Operation::kForward) {
      return client.ForwardIntoAsync(in[0].view(), in[1].view(), out[0].mutable_bytes(), done,
                                     options);
    }
    client.BackwardIntoAsync(
        in[0].view(), in[1].view(), in[2].view(),
        {out[0].mutable_bytes(), out[1].mutable_bytes(), out[2].mutable_bytes()}, done, options);
  }

 private:
  void CopyInputs() {
    int64_t size_bytes = 0;
    for (const ModelCall& call : calls_) {
      size_bytes += static_cast<int64_t>(call.inputs()[0].bytes().size());
    }
    const client::Dtype dtype = calls_[0].inputs()[0].dtype();
    const client::Shape shape = {size_bytes / client::ElementBytes(dtype)};
    for (size_t k = 0; k < calls_[0].inputs().size(); ++k) {
      inputs_.emplace_back(dtype, shape, size_bytes);
      std::byte* to = inputs_.back().mutable_bytes().data();
      for (const ModelCall& call : calls_) {
        const absl::Span<const std::byte> bytes = call.inputs()[k].bytes();
        if (!bytes.empty()) std::memcpy(to, bytes.data(), bytes.size());
        to += bytes.size();
      }
    }
    for (size_t k = 0; k < calls_[0].outputs().size(); ++k) {
      outputs_.emplace_back(dtype, shape, size_bytes);
    }
  }

  void CopyOutputs() const {
    for (size_t k = 0; k < outputs_.size(); ++k) {
      const std::byte* from = outputs_[k].bytes().data();
      for (const ModelCall& call : calls_) {
        const absl::Span<std::byte> bytes = call.outputs()[k].bytes();
        if (!bytes.empty()) std::memcpy(bytes.data(), from, bytes.size());
        from += bytes.size();
      }
    }
  }

  void End(const absl::Status& status) {
    const bool is_refused = absl::IsResourceExhausted(status) || absl::IsInvalidArgument(status);
    // If the server is full, it takes none of them. Otherwise it may take each by itself.
    if (is_refused && !list_->completion->end(group_.first).notes.is_pushed_back) {
      for (size_t i = 0; i < calls_.size(); ++i) {
        list_->StartAlone(group_.first + i).IgnoreError();
      }
    } else {
      if (status.ok()) CopyOutputs();
      list_->End(group_, status);
    }
    list_->NoteJoinedEnd();
  }

  const std::shared_ptr<CallList> list_;
  const Group group_;
  const absl::Span<ModelCall> calls_;
  std::vector<client::Tensor> inputs_;
  std::vector<client::Tensor> outputs_;
};

void CallList::StartJoined() {
  if (!BeginStarting()) return;
  while (const absl::optional<Group> group = Next()) {
    try {
      std::make_shared<JoinedCalls>(shared_from_this(), *group)->Start();
    } catch (const std::bad_alloc&) {
      End(*group, NoMemory());
      const absl::MutexLock lock(&mutex_);
      --num_under_way_;
    }
  }
}

// How many of the calls at the front may go together. 1 if the first one goes by itself.
size_t NumJoined(absl::Span<const ModelCall> calls, const client::Options& options) {
  const size_t most_bytes =
      options.hedge_delay > absl::ZeroDuration() ? kMostHedgedBytes : kMostJoinedBytes;
  size_t sum_bytes = 0;
  for (size_t i = 0; i < calls.size(); ++i) {
    if (!calls[i].IsJoinable()) return i;
    const Array& like = calls[i].inputs()[0];
    if (like.dtype() != calls[0].inputs()[0].dtype()) return i;
    const size_t size_bytes = calls[i].inputs().size() * like.bytes().size();
    sum_bytes += size_bytes;
    if (static_cast<int64_t>(size_bytes) > options.coalesce_bytes || sum_bytes > most_bytes) {
      return i;
    }
  }
  return calls.size();
}

// Whether a call whose memory of a GPU could not be used says the same of the next such call: the
// server is silent or takes no such memory, or a signal handler raised an exception.
bool HoldsForAll(const absl::Status& status) {
  return absl::IsCancelled(status) || absl::IsDeadlineExceeded(status) ||
         absl::IsUnavailable(status) || absl::IsUnimplemented(status);
}

}  // namespace

void StartAll(ClientState& client, const client::CallOptions& options, absl::Span<ModelCall> calls,
              const std::shared_ptr<Completion>& completion) {
  const auto list = std::make_shared<CallList>(client, options, calls, completion);
  absl::Status failed;
  size_t first = 0;
  while (first < calls.size()) {
    const Group group = {first,
                         std::max<size_t>(NumJoined(calls.subspan(first), client.options), 1)};
    first += group.num_calls;
    const bool is_over =
        calls[group.first].IsOnGpu() ? HoldsForAll(failed) : absl::IsCancelled(failed);
    if (is_over) {
      list->End(group, failed);
    } else if (group.num_calls > 1) {
      list->Join(group);
    } else {
      const absl::Status status = list->StartAlone(group.first);
      if (!status.ok()) failed = status;
    }
  }
}

}  // namespace swiglu::python
