// SPDX-License-Identifier: Apache-2.0
//
// Small messages go through one contiguous copy: they are a few hundred bytes.
#include "server/service/messages.h"

#include <string>

#include "absl/strings/str_cat.h"
#include "grpcpp/support/slice.h"
#include "server/codec/errors.h"

namespace swiglu::server {
namespace {

// "package.Type" → "Type".
std::string ShortTypeName(const google::protobuf::MessageLite& message) {
  const std::string full = message.GetTypeName();
  return full.substr(full.rfind('.') + 1);
}

}  // namespace

absl::Status ParseMessage(const grpc::ByteBuffer& bytes, google::protobuf::MessageLite* message) {
  const auto size_bytes = static_cast<int64_t>(bytes.Length());
  if (size_bytes > kMaxControlMessageBytes) {
    return errors::MessageTooLarge(ShortTypeName(*message), size_bytes, kMaxControlMessageBytes);
  }
  grpc::Slice flat;
  if (!bytes.DumpToSingleSlice(&flat).ok()) {
    return absl::InternalError("cannot read the received message");
  }
  if (message->ParseFromArray(flat.begin(), static_cast<int>(flat.size()))) return absl::OkStatus();
  return errors::Malformed(ShortTypeName(*message), absl::StrCat("in its ", flat.size(), " bytes"));
}

grpc::ByteBuffer SerializeMessage(const google::protobuf::MessageLite& message) {
  const grpc::Slice slice(message.SerializeAsString());
  return grpc::ByteBuffer(&slice, 1);
}

}  // namespace swiglu::server
