// SPDX-License-Identifier: Apache-2.0
//
// A message taken apart and checked, as the tests of both look at it.
#pragma once

#include <cstddef>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "grpcpp/support/slice.h"
#include "gtest/gtest.h"
#include "server/codec/infer_decoder.h"
#include "server/codec/infer_message.h"
#include "tests/rpc/requests.h"

namespace swiglu::server {

// What became of a message, with the inputs' bytes, so that it outlives the message.
struct Decoded {
  absl::Status status;
  InferPlan plan;  // its sources are gone
  std::vector<std::string> inputs;

  bool operator==(const Decoded& other) const {
    return status == other.status && plan.model == other.plan.model &&
           plan.shape == other.plan.shape && plan.num_elements == other.plan.num_elements &&
           plan.outputs == other.plan.outputs && plan.timeout == other.plan.timeout &&
           plan.priority == other.plan.priority && inputs == other.inputs;
  }
};

// The six models, and no others.
inline const ModelRegistry& SixModels() {
  static const ModelRegistry kModels;
  return kModels;
}

inline Decoded Decode(const std::vector<grpc::Slice>& slices, bool takes_regions = false,
                      const ModelRegistry& models = SixModels()) {
  Decoded decoded;
  InferMessage message;
  decoded.status = ParseInferMessage(slices, message);
  if (!decoded.status.ok()) return decoded;
  auto plan = CheckInferMessage(message, models, takes_regions);
  if (!plan.ok()) {
    decoded.status = plan.status();
    return decoded;
  }
  decoded.plan = *plan;
  PlanReader reader(*plan);
  for (size_t k = 0; k < plan->model->inputs.size(); ++k) {
    const bool is_inline = plan->regions == nullptr || !plan->regions->inputs[k].has_value();
    std::string bytes(is_inline ? static_cast<size_t>(plan->tensor_bytes) : 0, '\0');
    reader.Read(static_cast<int>(k), reinterpret_cast<std::byte*>(bytes.data()), bytes.size());
    decoded.inputs.push_back(std::move(bytes));
  }
  return decoded;
}

inline Decoded Decode(const std::string& bytes) { return Decode(Sliced(bytes, bytes.size())); }
inline Decoded Decode(const inference::ModelInferRequest& request, bool takes_regions = false,
                      const ModelRegistry& models = SixModels()) {
  const std::string bytes = request.SerializeAsString();
  return Decode(Sliced(bytes, bytes.size()), takes_regions, models);
}

#define EXPECT_STATUS(actual, expected_code, expected_message)        \
  do {                                                                \
    const absl::Status actual_status = (actual);                      \
    EXPECT_EQ(actual_status.code(), absl::StatusCode::expected_code); \
    EXPECT_EQ(actual_status.message(), expected_message);             \
  } while (false)

}  // namespace swiglu::server
