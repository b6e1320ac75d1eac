// SPDX-License-Identifier: Apache-2.0
//
// The text of addresses.
#include "client/server_address.h"

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"

namespace swiglu::client {
bool IsGroup(absl::string_view address) { return absl::StartsWith(address, "dns://"); }

absl::Status CheckAddress(absl::string_view address) {
  const absl::string_view kUnix = "unix:";
  const absl::string_view kDns = "dns:///";
  const auto bad = [&](absl::string_view why) {
    return absl::InvalidArgumentError(
        absl::StrCat("bad server address '", address, "': ", why, "; it takes ", kAddressForms));
  };
  if (absl::StartsWith(address, kUnix)) {
    return address.size() > kUnix.size() ? absl::OkStatus() : bad("the path is missing");
  }
  if (std::any_of(address.begin(), address.end(), absl::ascii_isspace))
    return bad("it has a space");
  absl::string_view place = address;
  absl::ConsumePrefix(&place, kDns);
  const size_t colon = place.rfind(':');
  if (colon == absl::string_view::npos) return bad("the port is missing");
  const absl::string_view host = place.substr(0, colon);
  if (host.empty()) return bad("the host is missing");
  if (absl::StrContains(host, '/')) return bad("a host has no '/'");
  if (absl::StrContains(host, ':') && (host.front() != '[' || host.back() != ']')) {
    return bad("an IPv6 address needs brackets, as in [::1]:8001");
  }
  int port = 0;
  const absl::string_view digits = place.substr(colon + 1);
  if (!std::all_of(digits.begin(), digits.end(), absl::ascii_isdigit) ||
      !absl::SimpleAtoi(digits, &port) || port < 1 || port > 65535) {
    return bad("the port is not a number from 1 to 65535");
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<std::string>> SplitAddresses(absl::string_view addresses) {
  std::vector<std::string> split;
  for (const absl::string_view address : absl::StrSplit(addresses, ',')) {
    const absl::Status status = CheckAddress(address);
    if (!status.ok()) return status;
    if (std::find(split.begin(), split.end(), address) != split.end()) {
      return absl::InvalidArgumentError(
          absl::StrCat("bad server addresses '", addresses, "': ", address, " is there twice"));
    }
    split.emplace_back(address);
  }
  if (split.size() > static_cast<size_t>(kMaxServers)) {
    return absl::InvalidArgumentError(absl::StrCat(
        "there are ", split.size(), " server addresses; a client takes up to ", kMaxServers));
  }
  return split;
}

}  // namespace swiglu::client
