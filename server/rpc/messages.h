// SPDX-License-Identifier: Apache-2.0
//
// Between generated messages and gRPC's byte buffers, for messages that carry no tensors.
#pragma once

#include "absl/status/status.h"
#include "google/protobuf/message_lite.h"
#include "grpcpp/support/byte_buffer.h"

namespace swiglu::server {

// Parses `bytes`. On error: INVALID_ARGUMENT, "malformed <type>".
absl::Status ParseMessage(const grpc::ByteBuffer& bytes, google::protobuf::MessageLite* message);

grpc::ByteBuffer SerializeMessage(const google::protobuf::MessageLite& message);

}  // namespace swiglu::server
