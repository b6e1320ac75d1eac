// SPDX-License-Identifier: Apache-2.0
//
// The shared memory of a fake server: it registers regions of /dev/shm as a server does, and echoes
// requests whose tensors are in them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/types/span.h"
#include "proto/inference.pb.h"
#include "tests/client/fake_server.h"

namespace swiglu::client {

// Used by the thread of one FakeServer; a test looks at it between calls.
class FakeRegions {
 public:
  FakeRegions() = default;
  ~FakeRegions();
  FakeRegions(const FakeRegions&) = delete;
  FakeRegions& operator=(const FakeRegions&) = delete;

  // Answers the calls of system shared memory, ModelInfer as `EchoInfer`, and ServerReady.
  FakeReply Answer(const FakeCall& call);

  // What was called, in order.
  std::vector<std::string> methods;
  // The last ModelInfer.
  inference::ModelInferRequest last_infer;
  // The registered memory, by name.
  std::map<std::string, absl::Span<std::byte>> regions;
  // The permissions of the last file that was registered.
  unsigned last_mode = 0;

 private:
  FakeReply Register(const inference::SystemSharedMemoryRegisterRequest& request);
  FakeReply Unregister(const std::string& name);
  FakeReply List() const;
  FakeReply Infer();
  absl::Span<std::byte> Place(
      const google::protobuf::Map<std::string, inference::InferParameter>& parameters);
};

}  // namespace swiglu::client
