// SPDX-License-Identifier: Apache-2.0
//
// A program outside the project that uses the client library. No server is there, so it sees a
// refusal and an error.
#include <cstdio>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "swiglu/client.h"
#include "swiglu/segment.h"
#include "swiglu/version.h"

// The client's names and the kernels' go together.
using namespace swiglu;          // NOLINT(google-build-using-namespace)
using namespace swiglu::client;  // NOLINT(google-build-using-namespace)
static_assert(ElementBytes(Dtype::kFp32) == 4 && sizeof(ForwardSegment) > 0);

// The package says its version to CMake and to pkg-config, too.
static_assert(std::string_view(SWIGLU_VERSION_STRING) == PACKAGE_VERSION);
#if SWIGLU_VERSION < 100
#error "a version older than 0.1.0"
#endif

int main() {
  swiglu::client::TuneProcess();
  auto client = swiglu::client::Client::Create("unix:/nonexistent/socket",
                                               {.timeout = absl::Milliseconds(500)});
  if (!client.ok()) {
    std::printf("Create: %s\n", client.status().ToString().c_str());
    return 1;
  }
  const auto ready = client->ServerReady();
  std::printf("ServerReady: %s\n", ready.status().ToString().c_str());
  return absl::IsUnavailable(ready.status()) ? 0 : 1;
}
