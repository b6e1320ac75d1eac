// SPDX-License-Identifier: Apache-2.0
//
// The end of a request. See the header.
#include "server/inference/open_request.h"

#include <string>
#include <utility>

#include "server/codec/errors.h"

namespace swiglu::server {

OpenRequest::OpenRequest(Observer* observer, InferContext context, int64_t bytes_in, Done done)
    : observer_(observer),
      context_(std::move(context)),
      bytes_in_(bytes_in),
      done_(std::move(done)) {}

void OpenRequest::Identify(const Model* model, InferIdentity identity) {
  model_ = model;
  identity_ = std::move(identity);
}

void OpenRequest::Answer(EncodedMessage message, int64_t num_elements, const PhaseTimes& times,
                         const RegionTensors* regions) {
  RequestRecord record;
  record.bytes_out = static_cast<int64_t>(message.size_bytes);
  record.num_elements = num_elements;
  record.times = times;
  if (regions != nullptr) {
    record.region_bytes_in = regions->bytes_in;
    record.region_bytes_out = regions->bytes_out;
  }
  End(std::move(record), std::move(message));
}

void OpenRequest::Fail(absl::Status status, const PhaseTimes& times) {
  // A stream's error names the model; an answer has its name from the plan.
  if (model_ != nullptr) identity_.model_name = std::string(model_->name);
  RequestRecord record;
  record.rejection = errors::RejectionOf(status);
  record.status = std::move(status);
  record.times = times;
  End(std::move(record), {});
}

void OpenRequest::End(RequestRecord record, EncodedMessage message) {
  record.model = model_;
  record.bytes_in = bytes_in_;
  record.started = context_.started;
  record.ended = Clock::now();
  record.id = identity_.id;
  record.origin = context_.origin;
  observer_->RequestFinished(record);
  InferReply reply{std::move(record.status), model_,       std::move(identity_), std::move(message),
                   record.started,           record.ended, record.times};
  std::exchange(done_, nullptr)(std::move(reply));
}

}  // namespace swiglu::server
