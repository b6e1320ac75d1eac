// SPDX-License-Identifier: Apache-2.0
//
// A channel of gRPC as this library uses it, and the wait for what happens on it.
#pragma once

#include <memory>

#include "absl/strings/string_view.h"
#include "grpc/support/time.h"
#include "grpcpp/channel.h"
#include "grpcpp/completion_queue.h"
#include "grpcpp/support/channel_arguments.h"
#include "swiglu/credentials.h"

namespace swiglu::client {

// A channel to `address` with a connection of its own; if IsGroup, with one to each server, and
// messages go to these in turn. The channel carries messages of any size, and uses neither retries
// nor proxies. `args` are its further settings.
std::shared_ptr<grpc::Channel> MakeChannel(absl::string_view address,
                                           const Credentials& credentials,
                                           grpc::ChannelArguments args = {});

// How a thread waits for an event of a completion queue.
enum class Wait { kSleep, kSpin };

// Waits for the next event of `queue`, as CompletionQueue::Next does, or polls without sleeping.
// False if `deadline`, of gRPC's monotonic clock, comes first, or if the queue is shut down and has
// no more events.
bool NextEvent(grpc::CompletionQueue& queue, Wait wait, gpr_timespec deadline, void** tag,
               bool* ok);

}  // namespace swiglu::client
