// SPDX-License-Identifier: Apache-2.0
//
// The addresses of servers, as users write them.
#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace swiglu::client {

// The most servers of a connection.
inline constexpr int kMaxServers = 64;

// The forms of an address, for texts.
inline constexpr char kAddressForms[] = "HOST:PORT, dns:///NAME:PORT or unix:/path";

// OK if `address` has one of these forms. Otherwise an error that says what is wrong.
absl::Status CheckAddress(absl::string_view address);

// Whether `address` stands for all the servers that its name resolves to: dns:///NAME:PORT, or,
// what gRPC takes too and CheckAddress refuses, dns://NAMESERVER/NAME:PORT.
bool IsGroup(absl::string_view address);

// Splits addresses at commas, so the path of a socket has none. The error is that of CheckAddress
// for the first bad one, or says that one is there twice, or that there are more than kMaxServers.
absl::StatusOr<std::vector<std::string>> SplitAddresses(absl::string_view addresses);

}  // namespace swiglu::client
