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

#include "absl/synchronization/mutex.h"
#include "absl/types/span.h"
#include "proto/inference.pb.h"
#include "tests/client/fake_server.h"

namespace swiglu::client {

// Used by the threads of one FakeServer; a test looks at it between calls.
class FakeRegions {
 public:
  FakeRegions() = default;
  ~FakeRegions();
  FakeRegions(const FakeRegions&) = delete;
  FakeRegions& operator=(const FakeRegions&) = delete;

  // Answers the calls of system shared memory, ModelInfer as `EchoInfer`, and ServerReady.
  FakeReply Answer(const FakeCall& call);

  // What was called, in order.
  std::vector<std::string> methods() const { return Copy(methods_); }
  // The last ModelInfer.
  inference::ModelInferRequest last_infer() const { return Copy(last_infer_); }
  // The registered memory, by name.
  std::map<std::string, absl::Span<std::byte>> regions() const { return Copy(regions_); }
  // The permissions of the last file that was registered.
  unsigned last_mode() const { return Copy(last_mode_); }

 private:
  template <typename T>
  T Copy(const T& value) const {
    absl::MutexLock lock(&mutex_);
    return value;
  }
  FakeReply Register(const inference::SystemSharedMemoryRegisterRequest& request);
  FakeReply Unregister(const std::string& name);
  FakeReply List() const;
  FakeReply Infer();
  absl::Span<std::byte> Place(
      const google::protobuf::Map<std::string, inference::InferParameter>& parameters);

  mutable absl::Mutex mutex_;  // of all that follows
  std::vector<std::string> methods_;
  inference::ModelInferRequest last_infer_;
  std::map<std::string, absl::Span<std::byte>> regions_;
  unsigned last_mode_ = 0;
};

}  // namespace swiglu::client
