// SPDX-License-Identifier: Apache-2.0
//
// Copies tensors together and apart.
#include "client/joined_message.h"

#include <algorithm>
#include <utility>

#include "client/call_ends.h"

namespace swiglu::client {

void EndIfOver(JoinedCall& call, absl::Time now, absl::string_view servers,
               std::vector<EndedCall>* ended) {
  absl::Status status;
  if (IsCancelled(call.context)) {
    status = CancelledStatus();
  } else if (now >= call.context.limit.deadline) {
    status = LateStatus(call.context.limit, servers);
  } else {
    return;
  }
  ended->push_back({std::move(call.done), std::move(status)});
  call.inference = nullptr;
}

void EraseEnded(std::vector<JoinedCall>* calls) {
  calls->erase(std::remove_if(calls->begin(), calls->end(),
                              [](const JoinedCall& call) { return call.inference == nullptr; }),
               calls->end());
}

void EndAll(std::vector<EndedCall> ended) {
  for (EndedCall& call : ended) {
    CallResult result;
    result.status = std::move(call.status);
    std::move(call.done)(std::move(result));
  }
}

void JoinedMessage::Fill(std::vector<JoinedCall> calls) {
  calls_ = std::move(calls);
  num_calls_ = calls_.size();
  is_sent_ = false;
  limit_ = calls_.front().context.limit;
  options_.statistics = nullptr;
  num_elements_ = 0;
  for (const JoinedCall& call : calls_) {
    num_elements_ += call.inference->num_elements();
    if (limit_.deadline < call.context.limit.deadline) limit_ = call.context.limit;
    if (call.context.options->statistics != nullptr) options_.statistics = &statistics_;
  }
}

void JoinedMessage::CopyInputs() {
  const Inference& like = *calls_.front().inference;
  const auto tensor_bytes = static_cast<size_t>(num_elements_ * ElementBytes(like.dtype));
  const size_t needed = tensor_bytes * (like.inputs.size() + like.outputs.size());
  if (bytes_.size() < needed) bytes_.resize(needed);
  model_.assign(like.model.data(), like.model.size());
  names_.clear();
  for (const Inference::Input& input : like.inputs) names_.emplace_back(input.name);
  for (const Inference::Output& output : like.outputs) names_.emplace_back(output.name);
  inference_ = {
      .model = model_, .dtype = like.dtype, .shape = {num_elements_}, .inputs = {}, .outputs = {}};
  std::byte* to = bytes_.data();
  for (size_t k = 0; k < like.inputs.size(); ++k) {
    inference_.inputs.push_back({names_[k], {to, tensor_bytes}});
    for (const JoinedCall& call : calls_) {
      const absl::Span<const std::byte> bytes = call.inference->inputs[k].bytes;
      to = std::copy(bytes.begin(), bytes.end(), to);
    }
  }
  for (size_t k = 0; k < like.outputs.size(); ++k) {
    inference_.outputs.push_back({names_[like.inputs.size() + k], {to, tensor_bytes}});
    to += tensor_bytes;
  }
}

CallContext JoinedMessage::context(EventQueue* queue) const {
  CallContext context{limit_, &options_};
  context.queue = queue;
  context.is_joined = true;
  return context;
}

bool JoinedMessage::EndLate(absl::Time now, absl::string_view servers,
                            std::vector<EndedCall>* ended) {
  if (!is_sent_) return true;
  bool has_calls = false;
  for (JoinedCall& call : calls_) {
    if (call.inference == nullptr) continue;
    if (now < call.context.limit.deadline) {
      has_calls = true;
      continue;
    }
    ended->push_back({std::move(call.done), LateStatus(call.context.limit, servers)});
    call.inference = nullptr;
  }
  return has_calls;
}

void JoinedMessage::CopyOutputs() {
  size_t offset = 0;
  for (const JoinedCall& call : calls_) {
    if (call.inference != nullptr) {
      for (size_t k = 0; k < inference_.outputs.size(); ++k) {
        const absl::Span<std::byte> bytes = call.inference->outputs[k].bytes;
        const std::byte* const from = inference_.outputs[k].bytes.data() + offset;
        std::copy(from, from + bytes.size(), bytes.begin());
      }
    }
    offset += call.tensor_bytes;
  }
}

std::vector<JoinedCall> JoinedMessage::TakeCalls() {
  EraseEnded(&calls_);
  return std::move(calls_);
}

}  // namespace swiglu::client
