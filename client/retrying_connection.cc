// SPDX-License-Identifier: Apache-2.0
//
// The attempts of one inference, one after the other.
#include "client/retrying_connection.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "client/call_ends.h"

namespace swiglu::client {

// Deletes itself when it has ended.
class RetryingConnection::Attempts {
 public:
  Attempts(RetryingConnection* owner, const Inference& inference, const CallContext& context,
           Done done)
      : owner_(*owner), inference_(inference), context_(context), done_(std::move(done)) {
    if (context_.queue == nullptr) context_.queue = owner_.threads_->Next();
  }

  void Start() {
    owner_.inner_->StartInfer(inference_, context_,
                              [this](CallResult&& result) { OnResult(std::move(result)); });
  }

 private:
  void OnResult(CallResult result) {
    AddMessages(result.statistics, &statistics_);
    const absl::optional<absl::Duration> wait = WaitForNext(result);
    if (!wait) return Finish(std::move(result));
    ++number_;
    if (*wait > absl::ZeroDuration()) return StartAfter(*wait);
    Start();
  }

  // How long to wait before the next attempt; nullopt if there is none.
  absl::optional<absl::Duration> WaitForNext(const CallResult& result) {
    if (result.status.ok() || result.server < 0) return absl::nullopt;
    context_.tried.Add(result.server);
    absl::optional<absl::Duration> wait =
        WaitBeforeRetry({result.status, result.pushback, number_, result.is_lost}, RandomShare());
    // Without a pushback the server may have begun, and have written over what it would read again.
    if (inference_.overwrites_inputs() && !result.pushback) return absl::nullopt;
    // What another server has not refused yet costs no time and no budget there.
    const bool has_other =
        wait && owner_.servers_->num_servers() > 1 && owner_.servers_->HasOther(context_.tried);
    if (!has_other && context_.return_pushback && result.pushback) return absl::nullopt;
    if (!wait || number_ == owner_.max_attempts_) return absl::nullopt;
    if (has_other) return absl::ZeroDuration();
    wait = std::min(*wait, owner_.servers_->TimeUntilOpen());
    if (absl::Now() + *wait >= context_.limit.deadline || !MayRetry(result)) return absl::nullopt;
    return wait;
  }

  // What has reached no server is no load for it, so to send it takes no retry from the budget.
  // Else the calls of an outage would use it up, and the first calls after the outage would fail.
  bool MayRetry(const CallResult& result) {
    if (result.reached_no_server) return owner_.budget_->has_retries();
    return HasPaid() || owner_.budget_->SpendOnRetry();
  }

  // Whether another part of the same call has paid for this retry. If not, this one has to.
  bool HasPaid() const {
    if (context_.paid_retries == nullptr) return false;
    int paid = context_.paid_retries->load(std::memory_order_relaxed);
    while (paid < number_) {
      if (context_.paid_retries->compare_exchange_weak(paid, number_, std::memory_order_relaxed)) {
        return false;
      }
    }
    return true;
  }

  void StartAfter(absl::Duration wait) {
    Timer* const timer = Timer::Start(context_.queue, absl::Now() + wait, [this] {
      if (context_.cancellation != nullptr) context_.cancellation->ClearStop();
      Start();
    });
    if (context_.cancellation == nullptr) return;
    context_.cancellation->SetStop([timer] { timer->Hurry(); });
  }

  void Finish(CallResult result) {
    if (!result.status.ok() && number_ > 1) {
      result.status =
          absl::Status(result.status.code(),
                       absl::StrCat(result.status.message(), " (tried ", number_, " times)"));
    }
    result.statistics.num_messages = statistics_.num_messages;
    result.statistics.bytes_sent = statistics_.bytes_sent;
    result.statistics.bytes_received = statistics_.bytes_received;
    Done done = std::move(done_);
    delete this;
    std::move(done)(std::move(result));
  }

  RetryingConnection& owner_;
  const Inference& inference_;
  CallContext context_;
  Done done_;
  int number_ = 1;
  CallStatistics statistics_;
};

void RetryingConnection::StartInfer(const Inference& inference, const CallContext& context,
                                    Done done) {
  (new Attempts(this, inference, context, std::move(done)))->Start();
}

}  // namespace swiglu::client
