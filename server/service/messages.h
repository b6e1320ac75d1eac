// SPDX-License-Identifier: Apache-2.0
//
// Converts generated messages to gRPC's byte buffers and back, for messages without tensors.
#pragma once

#include <cstdint>

#include "absl/status/status.h"
#include "google/protobuf/message_lite.h"
#include "grpcpp/support/byte_buffer.h"

namespace swiglu::server {

// The most bytes that a message without tensors may have. The longest valid message has a few
// hundred bytes.
inline constexpr int64_t kMaxControlMessageBytes = int64_t{64} << 10;

// Parses `bytes`. RESOURCE_EXHAUSTED, before any copy, if there are more than
// kMaxControlMessageBytes. INVALID_ARGUMENT ("malformed <type>") if `bytes` are not a message of
// that type.
absl::Status ParseMessage(const grpc::ByteBuffer& bytes, google::protobuf::MessageLite* message);

grpc::ByteBuffer SerializeMessage(const google::protobuf::MessageLite& message);

}  // namespace swiglu::server
