// SPDX-License-Identifier: Apache-2.0
//
// Parses the command line of swiglu-server into a plain struct. The default, meaning and valid
// range of each flag are in flags.cc.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "absl/time/time.h"
#include "server/base/command_line.h"
#include "server/gpu/device_choice.h"
#include "server/weights/mlp_spec.h"

namespace swiglu::server {

// The checked values of the flags. `--help` explains each flag.
struct Flags {
  std::string grpc_address;
  std::string metrics_address;  // empty: no metrics page
  DeviceKind device = DeviceKind::kAuto;
  std::vector<int> devices;  // CUDA ordinals; empty: all
  int lanes_per_device = 0;  // 0: the executor chooses
  int io_threads = 0;
  int64_t memory_budget_bytes = 0;
  int64_t max_request_bytes = 0;
  int64_t max_queued_requests = 0;
  absl::Duration max_queue_delay;
  absl::Duration stall_timeout;
  int64_t max_connections = 0;
  int unix_socket_mode = 0;
  bool reflection = false;
  bool system_shared_memory = false;
  bool cuda_shared_memory = false;
  std::string system_shared_memory_prefix;
  int64_t max_regions = 0;
  int64_t max_region_bytes = 0;
  int64_t max_pinned_bytes = 0;
  absl::Duration region_idle_timeout;  // zero: regions may be idle for any time
  std::vector<MlpSpec> mlps;           // those of the command line first
  int64_t mlp_max_batch_tokens = 0;
  int mlp_replicas = 0;
  bool mlp_control = false;
  absl::Duration max_connection_age;  // zero: no connection ends because of its age
  absl::Duration max_connection_age_grace;
  absl::Duration keepalive_time;  // zero: no pings
  absl::Duration keepalive_timeout;
  absl::Duration min_ping_interval;
  int64_t max_metadata_bytes = 0;
  absl::Duration drain_delay;
  absl::Duration drain_timeout;
  std::string log_level;
  std::string log_format;
  bool log_peers = false;
  // If set, the program asks the server at `grpc_address` for the health of this service ("": the
  // whole server), and exits.
  std::optional<std::string> health;
};

// The program prints `text` and exits with `code`. For --help, --manual and --version, the code is
// 0, and the text goes to stdout. If a flag is unknown or has a bad value, the code is 2, and the
// text is one line for stderr. This line names the flag, the value and what is valid.
struct EarlyExit {
  int code = 0;
  std::string text;  // ends with a newline
};

// Reads the command line, the environment and the file that --config names. If several of these
// three set a flag, the one named first here counts. If none sets it, the default counts, which may
// depend on the machine. On the command line, a flag is written `--name=value` or `--name value`.
// If a flag is repeated there, its last value counts. The values of --mlp and --mlp_layers
// add up, over all three; these rules then hold for each NAME. If `environment` is null, no
// environment is read.
std::variant<Flags, EarlyExit> ParseFlags(int argc, const char* const* argv,
                                          const Environment& environment = nullptr);

}  // namespace swiglu::server
