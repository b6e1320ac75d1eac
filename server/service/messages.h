// SPDX-License-Identifier: Apache-2.0
//
// Converts generated messages to gRPC's byte buffers and back, for messages without tensors.
#pragma once

#include <cstdint>

#include "absl/status/status.h"
#include "google/protobuf/message_lite.h"
#include "grpcpp/support/byte_buffer.h"

namespace swiglu::server {

// The most bytes that such a message may have. The longest valid message has some hundred bytes.
inline constexpr int64_t kMaxControlMessageBytes = int64_t{64} << 10;

// Parses `bytes`. Errors: RESOURCE_EXHAUSTED for more than kMaxControlMessageBytes, of which
// nothing is copied; INVALID_ARGUMENT, "malformed <type>".
absl::Status ParseMessage(const grpc::ByteBuffer& bytes, google::protobuf::MessageLite* message);

grpc::ByteBuffer SerializeMessage(const google::protobuf::MessageLite& message);

}  // namespace swiglu::server
