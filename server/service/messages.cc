// SPDX-License-Identifier: Apache-2.0
//
// Small messages go through one contiguous copy: they are a few hundred bytes.
#include "server/service/messages.h"

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "grpcpp/support/slice.h"
#include "server/inference/errors.h"

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
  std::vector<grpc::Slice> slices;
  std::string flat;
  if (!bytes.Dump(&slices).ok()) return absl::InternalError("cannot read the received message");
  for (const grpc::Slice& slice : slices) {
    flat.append(reinterpret_cast<const char*>(slice.begin()), slice.size());
  }
  if (message->ParseFromString(flat)) return absl::OkStatus();
  return errors::Malformed(ShortTypeName(*message), absl::StrCat("in its ", flat.size(), " bytes"));
}

grpc::ByteBuffer SerializeMessage(const google::protobuf::MessageLite& message) {
  const grpc::Slice slice(message.SerializeAsString());
  return grpc::ByteBuffer(&slice, 1);
}

}  // namespace swiglu::server
