// SPDX-License-Identifier: Apache-2.0
//
// The command line of `swiglu-bench`. An unknown flag or a wrong value is an error.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "absl/types/optional.h"
#include "client/bench/echo_server.h"
#include "client/bench/load.h"
#include "client/bench/mlp_model.h"
#include "client/bench/pace.h"

namespace swiglu::bench {

enum class Action { kLoad, kServeEcho, kHelp, kVersion, kCompletion, kManual };

enum class ClientKind { kRaw, kLibrary };

// What the user asks for. Every default is resolved.
struct CommandLine {
  Action action = Action::kLoad;

  // Used by kLoad.
  ClientKind client = ClientKind::kRaw;
  LoadOptions load;               // without a model, if `mlp` is chosen
  absl::optional<MlpChoice> mlp;  // the MLP that the requests are for; none for another model
  PaceOptions pace;
  absl::Duration wait_ready;  // how long the server may take to become ready
  std::string metrics;        // HOST:PORT of the server's Prometheus page, or empty
  pid_t server_pid = 0;       // the server's process on this machine, or 0
  bool check = false;         // compare results
  bool json = false;
  std::string histogram;  // the file for the latencies, or empty
  // The sizes of the requests of a sweep, which has a load for each. Empty: one load. `load` has
  // the sizes of all loads.
  std::vector<int64_t> sweep;
  std::string plot;  // the file for the drawing of a sweep, or empty

  // Used by kServeEcho.
  EchoOptions echo;
};

// Reads the arguments. INVALID_ARGUMENT, with a message of one line, if they are not valid.
absl::StatusOr<CommandLine> ParseCommandLine(int argc, const char* const* argv);

// OK if one message can carry the tensors of each request of `load`, or if the client splits them.
// INVALID_ARGUMENT, with a message of one line, if not.
absl::Status CheckMessages(ClientKind client, const LoadOptions& load);

// What --help, --completion and --manual print.
std::string HelpText();
std::string CompletionText();
std::string ManualText();

// The name on the command line, such as `raw`.
const char* Name(ClientKind client);
const char* Name(SharedMemory memory);
const char* Name(Arrivals arrivals);

}  // namespace swiglu::bench
