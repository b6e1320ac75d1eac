// SPDX-License-Identifier: Apache-2.0
//
// What a call with tensors on a GPU does besides: it shares their memory before, and keeps or
// forgets it afterwards.
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/match.h"
#include "absl/time/time.h"
#include "absl/types/optional.h"
#include "client/python/array.h"
#include "client/python/client_state.h"
#include "client/python/completion.h"
#include "client/python/gpu_memory.h"
#include "client/python/interruptible_connection.h"
#include "client/python/kept_arrays.h"
#include "client/python/model_call.h"
#include "swiglu/options.h"
#include "swiglu/tensor_place.h"

namespace swiglu::python {
namespace {

// Whether a server may have begun to compute for a call that ended like this.
bool MayHaveBegun(const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kOk:
    case absl::StatusCode::kInvalidArgument:
    case absl::StatusCode::kNotFound:
    case absl::StatusCode::kFailedPrecondition:
    case absl::StatusCode::kResourceExhausted:
    case absl::StatusCode::kUnimplemented:
      return false;
    default:
      return true;
  }
}

}  // namespace

absl::Status ModelCall::ShareGpuMemory(ClientState& client, absl::Time deadline) {
  // Before CUDA is asked, which fails in a child of fork().
  if (absl::Status status = client.CheckProcess(); !status.ok()) return status;
  const Array* awaited = nullptr;
  const auto share = [&](const Array& array, absl::optional<client::RegionPart>* part) {
    if (!array.is_on_gpu() || array.bytes().empty()) return absl::OkStatus();
    if (awaited == nullptr || array.gpu() != awaited->gpu() ||
        array.stream() != awaited->stream()) {
      absl::Status status = WaitForStream(array.gpu(), array.stream());
      if (!status.ok()) return status;
      awaited = &array;
    }
    absl::StatusOr<client::RegionPart> shared =
        client.gpu_memory.Share(client.client, array.bytes(), deadline);
    if (shared.ok()) *part = *std::move(shared);
    return shared.status();
  };
  absl::Status status;
  for (size_t i = 0; i < inputs_.size() && status.ok(); ++i) {
    status = share(inputs_[i], &input_parts_[i]);
  }
  for (size_t i = 0; i < outputs_.size() && status.ok(); ++i) {
    status = share(outputs_[i], &output_parts_[i]);
  }
  return status;
}

void ModelCall::ForgetGpuMemory(ClientState& client) {
  for (size_t i = 0; i < inputs_.size(); ++i) {
    if (inputs_[i].is_on_gpu() && input_parts_[i]) {
      client.gpu_memory.Forget(input_parts_[i]->region);
    }
  }
  for (size_t i = 0; i < outputs_.size(); ++i) {
    if (outputs_[i].is_on_gpu() && output_parts_[i]) {
      client.gpu_memory.Forget(output_parts_[i]->region);
    }
  }
}

bool ModelCall::IsOfUnknownRegion(const absl::Status& status) const {
  if (!absl::IsNotFound(status)) return false;
  // The names of these regions are random, so no other text has one.
  const auto is_it = [&status](const Array& array, const absl::optional<client::RegionPart>& part) {
    return array.is_on_gpu() && part && absl::StrContains(status.message(), part->region);
  };
  for (size_t i = 0; i < inputs_.size(); ++i) {
    if (is_it(inputs_[i], input_parts_[i])) return true;
  }
  for (size_t i = 0; i < outputs_.size(); ++i) {
    if (is_it(outputs_[i], output_parts_[i])) return true;
  }
  return false;
}

void ModelCall::RunOnGpu(ClientState& client, const client::CallOptions& options,
                         absl::Time deadline, CallEnd* end) {
  end->notes = {};
  end->status = ShareGpuMemory(client, deadline);
  if (!end->status.ok()) return;
  const CallScope scope(nullptr, &end->notes);
  Make(client.client, Until(deadline, options), end);
}

void ModelCall::NoteEnd(ClientState& client, const CallEnd& end) {
  if (end.status.ok() || !IsOnGpu()) return;
  if (IsOfUnknownRegion(end.status)) {
    const py::gil_scoped_release no_gil;
    ForgetGpuMemory(client);
  }
  if (end.notes.num_messages == 0 || !MayHaveBegun(end.status)) return;
  std::vector<Array> outputs;
  for (Array& output : outputs_) {
    if (output.is_on_gpu()) outputs.push_back(std::move(output));
  }
  if (!outputs.empty()) KeepForAMinute(std::move(outputs));
}

}  // namespace swiglu::python
