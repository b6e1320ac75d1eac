// SPDX-License-Identifier: Apache-2.0
//
// What the operating system says about this process.
#pragma once

namespace swiglu::server {

// Reads /proc. Thread-safe.
class ProcessMetrics {
 public:
  // What cannot be read is 0.
  struct Values {
    double cpu_seconds = 0;
    double resident_bytes = 0;
    double virtual_bytes = 0;
    double open_fds = 0;
    double max_fds = 0;
    double start_time_seconds = 0;  // since the epoch
  };

  ProcessMetrics();

  Values Read() const;

 private:
  const double start_time_seconds_;
};

}  // namespace swiglu::server
