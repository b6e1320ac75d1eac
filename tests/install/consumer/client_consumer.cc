// SPDX-License-Identifier: Apache-2.0
//
// A program outside the project that uses the client library. No server is there, so it sees a
// refusal and an error.
#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "swiglu/client.h"

int main() {
  swiglu::client::TuneProcess();
  auto client = swiglu::client::Client::Create("unix:/nonexistent/socket",
                                               {.timeout = absl::Milliseconds(500)});
  if (!client.ok()) {
    std::printf("Create: %s\n", client.status().ToString().c_str());
    return 1;
  }
  const auto ready = (*client)->ServerReady();
  std::printf("ServerReady: %s\n", ready.status().ToString().c_str());
  return absl::IsUnavailable(ready.status()) ? 0 : 1;
}
