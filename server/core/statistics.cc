// SPDX-License-Identifier: Apache-2.0
//
// Adds up what the data path reports, one lock per model.
#include "server/core/statistics.h"

namespace swiglu::server {

ModelStatistics Statistics::Get(const Model& model) const {
  const Entry& entry = entries_[model.index];
  absl::MutexLock lock(&entry.mutex);
  return entry.figures;
}

void Statistics::RequestFinished(const RequestRecord& record) {
  if (record.model == nullptr) return;
  const PhaseTimes& times = record.times;
  Entry& entry = entries_[record.model->index];
  absl::MutexLock lock(&entry.mutex);
  ModelStatistics& figures = entry.figures;
  if (!record.status.ok()) {
    figures.fail.Add(times.Total());
    return;
  }
  figures.last_success = std::chrono::system_clock::now();
  figures.success.Add(times.Total());
  figures.queue.Add(times.queue);
  figures.copy_in.Add(times.receive + times.copy_in);
  figures.compute.Add(times.compute);
  figures.copy_out.Add(times.copy_out);
}

void Statistics::BatchFinished(const BatchRecord& record) {
  if (!record.execution.status.ok()) return;
  Entry& entry = entries_[record.model->index];
  absl::MutexLock lock(&entry.mutex);
  ++entry.figures.num_batches;
  BatchSizeStatistics& by_size = entry.figures.by_batch_size[record.num_requests];
  by_size.copy_in.Add(record.execution.times.copy_in);
  by_size.compute.Add(record.execution.times.compute);
  by_size.copy_out.Add(record.execution.times.copy_out);
}

}  // namespace swiglu::server
