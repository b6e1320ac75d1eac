// SPDX-License-Identifier: Apache-2.0
//
// Digests outside the lock.
#include "client/bench/first_answers.h"

#include <string>
#include <utility>

#include "absl/hash/hash.h"
#include "absl/strings/str_cat.h"
#include "absl/types/span.h"
#include "client/bench/formula_check.h"

namespace swiglu::bench {

absl::Status FirstAnswers::Compare(size_t size, size_t layer, absl::string_view answer) {
  First digest{answer.size(), absl::Hash<absl::string_view>()(answer), ""};
  absl::MutexLock lock(&mutex_);
  std::optional<First>& first = first_[layer * num_sizes_ + size];
  if (!first.has_value()) {
    if (data_ != nullptr) digest.answer = std::string(answer);
    first = std::move(digest);
    return absl::OkStatus();
  }
  if (digest.size_bytes == first->size_bytes && digest.hash == first->hash) {
    ++num_compared_;
    return absl::OkStatus();
  }
  const std::string what = absl::StrCat("wrong result: an answer of '", model_.names[layer], "' ");
  const absl::Status difference = absl::DataLossError(
      digest.size_bytes == first->size_bytes
          ? absl::StrCat(what, "differs from the first one to an equal request")
          : absl::StrCat(what, "has ", digest.size_bytes,
                         " bytes, the first one to an equal request has ", first->size_bytes));
  difference_.Update(difference);
  return difference;
}

absl::StatusOr<int64_t> FirstAnswers::Result() const {
  absl::MutexLock lock(&mutex_);
  if (!difference_.ok()) return difference_;
  return num_compared_;
}

absl::StatusOr<int64_t> FirstAnswers::CheckKept() const {
  absl::MutexLock lock(&mutex_);
  int64_t num_right = 0;
  for (size_t k = 0; data_ != nullptr && k < first_.size(); ++k) {
    if (!first_[k].has_value()) continue;
    const std::string& answer = first_[k]->answer;
    const absl::Status status = CheckByFormula(
        (*data_)[k % num_sizes_],
        absl::MakeSpan(reinterpret_cast<const std::byte*>(answer.data()), answer.size()));
    if (!status.ok()) return status;
    ++num_right;
  }
  return num_right;
}

}  // namespace swiglu::bench
