// SPDX-License-Identifier: Apache-2.0
//
// The settings of channels.
#include "client/channel.h"

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "client/server_address.h"
#include "grpc/support/time.h"
#include "grpcpp/create_channel.h"
#include "grpcpp/security/credentials.h"

namespace swiglu::client {
namespace {

std::shared_ptr<grpc::ChannelCredentials> ToGrpc(const Credentials& credentials) {
  switch (credentials.kind()) {
    case Credentials::Kind::kInsecure:
      return grpc::InsecureChannelCredentials();
  }
  return nullptr;  // gRPC fails the calls of such a channel.
}

}  // namespace

std::shared_ptr<grpc::Channel> MakeChannel(absl::string_view address,
                                           const Credentials& credentials,
                                           grpc::ChannelArguments args) {
  args.SetMaxSendMessageSize(-1);
  args.SetMaxReceiveMessageSize(-1);
  // Each channel has a connection of its own, though all have one address.
  args.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  // A retry keeps the request's memory, and its policy is the caller's.
  args.SetInt(GRPC_ARG_ENABLE_RETRIES, 0);
  // Tensors go straight to the server, whatever proxy the environment names for web pages.
  args.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  args.SetInt(GRPC_ARG_SERVICE_CONFIG_DISABLE_RESOLUTION, 1);
  if (IsGroup(address)) {
    args.SetServiceConfigJSON(R"({"loadBalancingConfig":[{"round_robin":{}}]})");
  }
  const bool has_scheme = IsGroup(address) || absl::StartsWith(address, "unix:");
  const absl::string_view scheme = has_scheme ? "" : "dns:///";
  return grpc::CreateCustomChannel(absl::StrCat(scheme, address), ToGrpc(credentials), args);
}

bool NextEvent(grpc::CompletionQueue& queue, Wait wait, gpr_timespec deadline, void** tag,
               bool* ok) {
  // A time in the past lets the queue poll once.
  const gpr_timespec until = wait == Wait::kSpin ? gpr_time_0(GPR_CLOCK_MONOTONIC) : deadline;
  while (true) {
    const grpc::CompletionQueue::NextStatus status = queue.AsyncNext(tag, ok, until);
    if (status != grpc::CompletionQueue::TIMEOUT) return status == grpc::CompletionQueue::GOT_EVENT;
    if (gpr_time_cmp(gpr_now(GPR_CLOCK_MONOTONIC), deadline) >= 0) return false;
  }
}

}  // namespace swiglu::client
