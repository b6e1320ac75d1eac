// SPDX-License-Identifier: Apache-2.0
//
// Compares the answers of a load with each other, and the first ones with the formulas: equal
// requests must have equal answers.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "client/bench/model.h"
#include "client/bench/request_data.h"

namespace swiglu::bench {

// Keeps a digest of the first answer to each request that a load repeats: one for each layer and
// size. Two answers of a size that differ have equal digests with a chance of 2^-64. Thread-safe.
class FirstAnswers {
 public:
  // `model` must outlive it.
  FirstAnswers(const Model* model, size_t num_sizes)
      : model_(*model), num_sizes_(num_sizes), first_(model->names.size() * num_sizes) {}

  // From now on, also keeps these answers. REQUIRES: no answer has come; answers are the outputs of
  // requests with `data`, which outlives this object, one after the other; the model is not that of
  // an MLP.
  void KeepAnswersTo(const std::vector<RequestData>* data) { data_ = data; }

  // Takes the bytes of an answer. DATA_LOSS if they differ from those of the first answer to a
  // request of this size and layer.
  absl::Status Compare(size_t size, size_t layer, absl::string_view answer);

  // How many answers were compared and are equal, or the first difference.
  absl::StatusOr<int64_t> Result() const;

  // Compares the answers that were kept with the formulas, by CheckByFormula. How many there are
  // and are right, or the first error.
  absl::StatusOr<int64_t> CheckKept() const;

 private:
  struct First {
    size_t size_bytes = 0;
    uint64_t hash = 0;
    std::string answer;  // empty unless it is kept
  };

  const Model& model_;
  const size_t num_sizes_;
  const std::vector<RequestData>* data_ = nullptr;
  mutable absl::Mutex mutex_;
  std::vector<std::optional<First>> first_ ABSL_GUARDED_BY(mutex_);
  int64_t num_compared_ ABSL_GUARDED_BY(mutex_) = 0;
  absl::Status difference_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace swiglu::bench
