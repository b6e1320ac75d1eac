// SPDX-License-Identifier: Apache-2.0
//
// The retry budget, and the times between attempts.
#include "client/retry.h"

#include <algorithm>
#include <random>

namespace swiglu::client {
namespace {

constexpr absl::Duration kFirstBackoff = absl::Milliseconds(50);
constexpr absl::Duration kMaxBackoff = absl::Seconds(1);

}  // namespace

void RetryBudget::EarnByCall() {
  absl::MutexLock lock(&mutex_);
  num_left_ = std::min(num_left_ + retries_per_call_, kMostRetries);
}

bool RetryBudget::SpendOnRetry() {
  absl::MutexLock lock(&mutex_);
  if (num_left_ < 1) return false;
  num_left_ -= 1;
  return true;
}

absl::optional<absl::Duration> WaitBeforeRetry(const FailedAttempt& failed, double random) {
  const bool is_refusal =
      absl::IsUnavailable(failed.status) || absl::IsResourceExhausted(failed.status);
  if (failed.pushback && is_refusal) {
    if (*failed.pushback < absl::ZeroDuration()) return absl::nullopt;
    return *failed.pushback * (1 + random / 2);
  }
  if (!absl::IsUnavailable(failed.status)) return absl::nullopt;
  absl::Duration backoff = kFirstBackoff;
  for (int i = 1; i < failed.number && backoff < kMaxBackoff; ++i) backoff *= 2;
  backoff = std::min(backoff, kMaxBackoff);
  return failed.is_lost ? backoff * (1 + random) : backoff * random;
}

double RandomShare() {
  thread_local std::minstd_rand engine(std::random_device{}());
  return std::uniform_real_distribution<double>(0, 1)(engine);
}

}  // namespace swiglu::client
