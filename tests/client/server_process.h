// SPDX-License-Identifier: Apache-2.0
//
// The program swiglu-server as a process of its own, for tests of the library with it.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "swiglu/client.h"

namespace swiglu::client {

// A running server on the CPU. It ends with this object.
class ServerProcess {
 public:
  // `address` is HOST:PORT, a free port by default.
  explicit ServerProcess(std::vector<std::string> flags,
                         const std::string& address = "127.0.0.1:0");
  ~ServerProcess();
  ServerProcess(const ServerProcess&) = delete;
  ServerProcess& operator=(const ServerProcess&) = delete;

  const std::string& address() const { return address_; }

  // Ends it with SIGKILL, as a crash would, and waits for its end.
  void Kill();
  // Asks it to drain, and waits for its end.
  void Stop();

  // Asks it to drain, and does not wait.
  void Drain();

  // Lets it hang, with its connections open, until Resume.
  void Pause();
  void Resume();

 private:
  void Send(int signal);
  void EndBy(int signal);
  // The rest of the log is left in the pipe.
  void ReadAddress();

  pid_t pid_ = 0;
  int log_ = -1;
  std::string address_;
};

std::unique_ptr<Client> Connect(const ServerProcess& server, const Options& options = {});

// The bytes of finite numbers of any dtype.
std::string Numbers(int64_t num_bytes, uint32_t seed);

}  // namespace swiglu::client
