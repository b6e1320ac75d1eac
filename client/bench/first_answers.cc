// SPDX-License-Identifier: Apache-2.0
//
// Compares outside the lock.
#include "client/bench/first_answers.h"

#include <algorithm>

#include "absl/strings/str_cat.h"

namespace swiglu::bench {
namespace {

absl::Status CompareWith(absl::string_view first, absl::string_view answer,
                         absl::string_view model) {
  if (answer == first) return absl::OkStatus();
  const std::string what = absl::StrCat("wrong result: an answer of '", model, "' ");
  if (answer.size() != first.size()) {
    return absl::DataLossError(absl::StrCat(what, "has ", answer.size(),
                                            " bytes, the first one to an equal request has ",
                                            first.size()));
  }
  const auto [found, expected] = std::mismatch(answer.begin(), answer.end(), first.begin());
  return absl::DataLossError(absl::StrCat(
      what, "differs from the first one to an equal request: byte ", found - answer.begin(), " is ",
      static_cast<unsigned char>(*found), ", not ", static_cast<unsigned char>(*expected)));
}

}  // namespace

const std::string* FirstAnswers::FirstOr(size_t index, absl::string_view answer) {
  absl::MutexLock lock(&mutex_);
  if (first_[index] != nullptr) return first_[index].get();
  first_[index] = std::make_unique<const std::string>(answer);
  return nullptr;
}

absl::Status FirstAnswers::Compare(size_t size, size_t layer, absl::string_view answer) {
  const std::string* const first = FirstOr(layer * num_sizes_ + size, answer);
  if (first == nullptr) return absl::OkStatus();
  const absl::Status status = CompareWith(*first, answer, model_.names[layer]);
  absl::MutexLock lock(&mutex_);
  if (status.ok()) ++num_compared_;
  difference_.Update(status);
  return status;
}

absl::StatusOr<int64_t> FirstAnswers::Result() const {
  absl::MutexLock lock(&mutex_);
  if (!difference_.ok()) return difference_;
  return num_compared_;
}

}  // namespace swiglu::bench
