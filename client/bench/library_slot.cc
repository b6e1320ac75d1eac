// SPDX-License-Identifier: Apache-2.0
//
// Tensors of the next call, in memory or in a region.
#include "client/bench/library_slot.h"

#include <algorithm>
#include <cstdint>
#include <utility>

#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace swiglu::bench {
namespace {

size_t AnswerBytes(const LoadOptions& options, const std::vector<RequestData>& data) {
  int64_t most = 0;
  if (options.shared_tensors != nullptr) return 0;
  for (const RequestData& size : data) most = std::max(most, size.output_bytes());
  return static_cast<size_t>(most);
}

}  // namespace

LibrarySlot::LibrarySlot(size_t index, const LoadOptions* options,
                         const std::vector<RequestData>* data, client::Connection* connection,
                         std::function<void()> on_end)
    : index_(index),
      options_(*options),
      data_(*data),
      connection_(std::make_shared<NotingConnection>(connection, std::move(on_end))),
      client_(connection_),
      sizes_(options->request_bytes, static_cast<uint32_t>(index)),
      answer_(AnswerBytes(*options, *data)) {}

void LibrarySlot::Call(const Turn& turn) {
  Begin(turn);
  status_ =
      CallModel(client_, data().model(), layer_, MakeInputs(), MakeOutputs(), OptionsOfCall());
}

bool LibrarySlot::Start(const Turn& turn) {
  Begin(turn);
  future_ =
      StartModel(client_, data().model(), layer_, MakeInputs(), MakeOutputs(), OptionsOfCall());
  has_future_ = true;
  return connection_->has_begun();
}

void LibrarySlot::Count(const Pace& pace, Tally* tally) {
  absl::Status status = has_future_ ? future_.Get() : std::move(status_);
  has_future_ = false;
  const Clock::time_point end = connection_->has_begun() ? connection_->end() : Clock::now();
  if (options_.shared_tensors != nullptr) {
    options_.shared_tensors->Finish(index_, layer_, data(), status);
  }
  if (status.ok()) status = Compare();
  if (!pace.Counts(turn_, end)) return;
  tally->Record(size_, data(), turn_, end, status);
  tally->RecordMessages(connection_->statistics(), num_chunks_);
}

void LibrarySlot::Begin(const Turn& turn) {
  connection_->Reset();
  num_chunks_ = 0;
  turn_ = turn;
  size_ = sizes_.Pick();
  layer_ = num_called_++ % options_.model->names.size();
}

LibrarySlot::Inputs LibrarySlot::MakeInputs() const {
  const Model& model = data().model();
  Inputs inputs;
  for (size_t k = 0; k < model.inputs.size(); ++k) {
    if (options_.shared_tensors != nullptr) {
      inputs.push_back(options_.shared_tensors->Input(index_, k, data()));
    } else {
      inputs.push_back(client::TensorView{model.dtype, data().shape(), data().input(k)});
    }
  }
  return inputs;
}

LibrarySlot::Outputs LibrarySlot::MakeOutputs() {
  const Model& model = data().model();
  const auto size = static_cast<size_t>(TensorBytes(model, data().num_elements()));
  Outputs outputs;
  for (size_t k = 0; k < model.outputs.size(); ++k) {
    if (options_.shared_tensors != nullptr) {
      outputs.push_back(options_.shared_tensors->Output(index_, k, data()));
    } else {
      outputs.push_back(absl::MakeSpan(answer_).subspan(k * size, size));
    }
  }
  return outputs;
}

client::CallOptions LibrarySlot::OptionsOfCall() {
  // The number of chunks only grows, but several threads may tell it, in any order.
  const auto note_chunks = [this](int64_t /*num_done*/, int64_t num_chunks) {
    int64_t known = num_chunks_;
    while (known < num_chunks && !num_chunks_.compare_exchange_weak(known, num_chunks)) {
    }
  };
  return {.timeout = RequestTimeout(options_, data()), .on_chunk = note_chunks};
}

absl::Status LibrarySlot::Compare() const {
  if (options_.first_answers == nullptr) return absl::OkStatus();
  return options_.first_answers->Compare(
      size_, layer_,
      {reinterpret_cast<const char*>(answer_.data()), static_cast<size_t>(data().output_bytes())});
}

}  // namespace swiglu::bench
