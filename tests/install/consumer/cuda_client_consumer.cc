// SPDX-License-Identifier: Apache-2.0
//
// A program outside the project that shares GPU memory by the client library. No server is there
// and, as a rule, no GPU: it sees that memory of the host cannot be shared, or that CUDA has no
// device.
#include <cstdio>
#include <memory>

#include "swiglu/client.h"
#include "swiglu/cuda_shared_memory.h"

int main() {
  auto client = swiglu::client::Client::Create("unix:/nonexistent/socket");
  if (!client.ok()) return 1;
  const auto memory = std::make_unique<char[]>(4096);
  const auto region = swiglu::client::CudaRegion::Create(*client, memory.get(), 4096);
  std::printf("CudaRegion: %s\n", region.status().ToString().c_str());
  const bool right = absl::IsInvalidArgument(region.status()) || absl::IsInternal(region.status());
  return right ? 0 : 1;
}
