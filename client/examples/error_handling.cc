// SPDX-License-Identifier: Apache-2.0
//
// Example: the kinds of errors that a call ends with, and what to do about each.
// `error_handling HOST:PORT` provokes them and ends with 0 if each is of the kind that it says.
#include <cmath>
#include <cstdio>
#include <vector>

#include "absl/time/time.h"
#include "swiglu/client.h"
#include "swiglu/typed_view.h"

using absl::StatusCode;
using swiglu::client::Client;
using swiglu::client::Elements;
using swiglu::client::TensorView;
using swiglu::client::View;

// The code decides what to do. The message is for people. It names the server, and how often the
// library has tried.
const char* Remedy(const absl::Status& status) {
  if (status.ok()) return "none";
  // The server is full, draining or not there. The library has tried a few times already.
  if (absl::IsUnavailable(status)) return "try again later, or another server";
  // Too little time, or the server is too busy.
  if (absl::IsDeadlineExceeded(status)) return "give more time";
  // The call is wrong, too large for the server or for this process, or unknown to the server.
  if (absl::IsInvalidArgument(status) || absl::IsNotFound(status) ||
      absl::IsResourceExhausted(status) || absl::IsUnimplemented(status)) {
    return "change the call";
  }
  if (absl::IsCancelled(status)) return "none: the program has cancelled the call";
  // INTERNAL: a device failed, or the answer is not one to the call.
  return "look into the server's log";
}

// Prints an error and its remedy. Whether it has the code that the example provokes.
bool Show(const char* kind, const absl::Status& status, StatusCode expected) {
  std::printf("%s: %s; remedy: %s\n", kind, status.ToString().c_str(), Remedy(status));
  return status.code() == expected;
}

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fprintf(stderr, "usage: error_handling HOST:PORT\n");
    return 2;
  }
  const auto client = Client::Create(argv[1]);
  if (!client.ok()) return Show("address", client.status(), StatusCode::kOk) ? 0 : 1;
  const std::vector<float> ones(1000, 1.0f);
  const TensorView e = View(ones);

  // Local: nothing is sent. CheckForward finds by itself what Forward would find.
  bool right = Show("local", CheckForward(e, View(ones, {10, 100})), StatusCode::kInvalidArgument);
  const auto late = client->Forward(e, e, {.timeout = absl::Microseconds(1)});
  right &= Show("deadline", late.status(), StatusCode::kDeadlineExceeded);
  right &= Show("permanent", client->ModelMetadata("nope").status(), StatusCode::kNotFound);
  const auto nobody = Client::Create("unix:/nonexistent/socket");
  const auto refused = nobody->Forward(e, e, {.timeout = absl::Seconds(5)});
  right &= Show("retryable", refused.status(), StatusCode::kUnavailable);
  const auto h = client->Forward(e, e, {.timeout = absl::Seconds(10)});
  right &= Show("call", h.status(), StatusCode::kOk);
  for (size_t i = 0; right && i < ones.size(); ++i) {
    right = std::fabs(Elements<float>(*h).value()[i] - 1 / (1 + std::exp(-1.0))) <= 1e-5;
  }
  if (!right) std::printf("wrong: an error of another kind, or another value\n");
  return right ? 0 : 1;
}
