// SPDX-License-Identifier: Apache-2.0
//
// The table of flags, the walk over argv, and what flags have to do with each other.
#include "client/bench/command_line.h"

#include <algorithm>
#include <thread>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "client/bench/byte_mix.h"
#include "client/connection_pool.h"
#include "server/base/address.h"
#include "server/base/byte_size.h"

namespace swiglu::bench {
namespace {

// The largest protobuf message, less what a request has beside its tensors.
constexpr int64_t kMaxRawRequestBytes = (int64_t{1} << 31) - 1 - 512;

constexpr int kMost = 65536;

// The flags as they are given, before they are put together.
struct Given {
  CommandLine command;
  int in_flight = 0;
  int max_outstanding = 0;
  int threads = 0;
};

bool ParseCount(absl::string_view text, int64_t least, int64_t most, int64_t* count) {
  return absl::SimpleAtoi(text, count) && *count >= least && *count <= most;
}

bool ParseCount(absl::string_view text, int least, int most, int* count) {
  return absl::SimpleAtoi(text, count) && *count >= least && *count <= most;
}

bool ParseSwitch(absl::string_view text, bool* on) { return absl::SimpleAtob(text, on); }

bool ParseTime(absl::string_view text, absl::Duration least, absl::Duration* time) {
  return absl::ParseDuration(text, time) && *time >= least && *time <= absl::Hours(24);
}

bool ParseTime(absl::string_view text, absl::Duration least, Clock::duration* time) {
  absl::Duration duration;
  if (!ParseTime(text, least, &duration)) return false;
  *time = absl::ToChronoNanoseconds(duration);
  return true;
}

bool ParseModel(absl::string_view text, const Model** model) {
  *model = FindModel(text);
  return *model != nullptr;
}

// Picks the value whose name is `text`.
template <typename Value>
bool ParseChoice(absl::string_view text,
                 std::initializer_list<std::pair<const char*, Value>> values, Value* value) {
  for (const auto& [name, named] : values) {
    if (text == name) return *value = named, true;
  }
  return false;
}

bool ParseSizes(absl::string_view text, std::vector<int64_t>* sizes) {
  const absl::StatusOr<std::vector<WeightedSize>> mix = ParseByteMix(text);
  if (!mix.ok() || absl::StrContains(text, '*')) return false;
  sizes->clear();
  for (const WeightedSize& size : *mix) sizes->push_back(size.bytes);
  return true;
}

bool ParseMix(absl::string_view text, std::vector<WeightedSize>* mix) {
  absl::StatusOr<std::vector<WeightedSize>> parsed = ParseByteMix(text);
  if (!parsed.ok()) return false;
  *mix = *std::move(parsed);
  return true;
}

struct Flag {
  absl::string_view name;
  absl::string_view default_text;  // parsed before the arguments; empty: the field's own
  absl::string_view help;
  absl::string_view valid;  // completes "it takes ..."
  bool (*set)(absl::string_view text, Given& given);
  bool is_switch = false;  // may be given without a value: "true"
};

// Every flag, in the order of --help.
constexpr Flag kFlags[] = {
    {"server", "127.0.0.1:8001", "the server", "HOST:PORT or unix:/path",
     [](absl::string_view text, Given& given) {
       given.command.load.server = std::string(text);
       return client::CheckAddress(text).ok();
     }},
    {"model", "swiglu_forward_fp16", "what is asked for", "one of the server's six models",
     [](absl::string_view text, Given& given) {
       return ParseModel(text, &given.command.load.model);
     }},
    {"request_bytes", "64KiB",
     "bytes of the input tensors of a request, rank 1, or a mix such as 64KiB*9,4MiB*1",
     "SIZE[*WEIGHT][,SIZE[*WEIGHT]]...",
     [](absl::string_view text, Given& given) {
       return ParseMix(text, &given.command.load.request_bytes);
     }},
    {"client", "raw",
     "raw: encoded beforehand, answers not parsed; library: swiglu::client, which splits what is "
     "larger than a message",
     "raw or library",
     [](absl::string_view text, Given& given) {
       return ParseChoice<ClientKind>(
           text, {{"raw", ClientKind::kRaw}, {"library", ClientKind::kLibrary}},
           &given.command.client);
     }},
    {"connections", "8", "connections to the server", "1 to 65536",
     [](absl::string_view text, Given& given) {
       return ParseCount(text, 1, kMost, &given.command.load.num_connections);
     }},
    {"in_flight", "16", "requests under way in a closed loop, spread over the connections",
     "1 to 65536",
     [](absl::string_view text, Given& given) {
       return ParseCount(text, 1, kMost, &given.in_flight);
     }},
    {"threads", "0",
     "threads of the raw client that take answers; 0: half of the cores, at most one per "
     "connection",
     "0 to 65536",
     [](absl::string_view text, Given& given) {
       return ParseCount(text, 0, kMost, &given.threads);
     }},
    {"rate", "0", "requests per second of an open loop; 0: a closed loop", "0 to 1000000",
     [](absl::string_view text, Given& given) {
       double& rate = given.command.pace.rate;
       return absl::SimpleAtod(text, &rate) && rate >= 0 && rate <= 1e6;
     }},
    {"arrivals", "poisson", "how an open loop's requests follow each other", "poisson or constant",
     [](absl::string_view text, Given& given) {
       return ParseChoice<Arrivals>(
           text, {{"poisson", Arrivals::kPoisson}, {"constant", Arrivals::kConstant}},
           &given.command.pace.arrivals);
     }},
    {"max_outstanding", "256",
     "requests of an open loop under way at once; further ones start late, and those that did not "
     "start are counted",
     "1 to 65536",
     [](absl::string_view text, Given& given) {
       return ParseCount(text, 1, kMost, &given.max_outstanding);
     }},
    {"duration", "5s", "time in which requests count", "a time above 0, such as 5s or 500ms",
     [](absl::string_view text, Given& given) {
       return ParseTime(text, absl::Nanoseconds(1), &given.command.pace.duration);
     }},
    {"warm_up", "1s", "time before it", "a time, such as 1s or 0",
     [](absl::string_view text, Given& given) {
       return ParseTime(text, absl::ZeroDuration(), &given.command.pace.warm_up);
     }},
    {"requests", "0", "end after that many requests that count; 0: by --duration", "0 or more",
     [](absl::string_view text, Given& given) {
       return ParseCount(text, int64_t{0}, int64_t{1} << 40, &given.command.pace.num_requests);
     }},
    {"timeout", "0", "time for a request; 0: 30s, and 1s more per 100 MB", "a time, such as 10s",
     [](absl::string_view text, Given& given) {
       return ParseTime(text, absl::ZeroDuration(), &given.command.load.timeout);
     }},
    {"announce_size", "true", "whether the raw client tells the server sizes ahead, as the library",
     "true or false",
     [](absl::string_view text, Given& given) {
       return ParseSwitch(text, &given.command.load.announce_size);
     },
     true},
    {"wait_ready", "0", "how long the server may take to become ready", "a time, such as 10s",
     [](absl::string_view text, Given& given) {
       return ParseTime(text, absl::ZeroDuration(), &given.command.wait_ready);
     }},
    {"metrics", "", "the server's Prometheus page, for its use of CPU and memory", "HOST:PORT",
     [](absl::string_view text, Given& given) {
       given.command.metrics = std::string(text);
       return !absl::StartsWith(text, "unix:") && client::CheckAddress(text).ok();
     }},
    {"server_pid", "", "the server's process on this machine, for the same", "a process's number",
     [](absl::string_view text, Given& given) {
       return ParseCount(text, 1, 1 << 30, &given.command.server_pid);
     }},
    {"json", "false", "print one JSON object", "true or false",
     [](absl::string_view text, Given& given) { return ParseSwitch(text, &given.command.json); },
     true},
    {"serve_echo", "", "serve the bare echo there until SIGTERM, instead of a load",
     "HOST:PORT or unix:/path",
     [](absl::string_view text, Given& given) {
       given.command.action = Action::kServeEcho;
       given.command.echo.address = std::string(text);
       return server::IsAddress(text);
     }},
    {"echo_threads", "4", "threads of the echo", "1 to 1024",
     [](absl::string_view text, Given& given) {
       return ParseCount(text, 1, 1024, &given.command.echo.num_threads);
     }},
    {"echo_queues", "own", "whether its threads have a completion queue each", "own or shared",
     [](absl::string_view text, Given& given) {
       return ParseChoice<EchoQueues>(text,
                                      {{"own", EchoQueues::kOwn}, {"shared", EchoQueues::kShared}},
                                      &given.command.echo.queues);
     }},
    {"echo_model", "swiglu_forward_fp16", "whose answers the echo gives",
     "one of the server's six models",
     [](absl::string_view text, Given& given) {
       return ParseModel(text, &given.command.echo_model);
     }},
    {"echo_bytes", "64KiB", "the sizes of requests that it answers", "SIZE[,SIZE]...",
     [](absl::string_view text, Given& given) {
       return ParseSizes(text, &given.command.echo_bytes);
     }},
};

absl::Status Usage(absl::string_view what) {
  return absl::InvalidArgumentError(absl::StrCat(what, "; see swiglu-bench --help"));
}

const Flag* FindFlag(absl::string_view name) {
  const auto* found = std::find_if(std::begin(kFlags), std::end(kFlags),
                                   [name](const Flag& flag) { return flag.name == name; });
  return found == std::end(kFlags) ? nullptr : found;
}

absl::Status SetFlags(int argc, const char* const* argv, Given& given) {
  for (const Flag& flag : kFlags) {
    if (!flag.default_text.empty()) flag.set(flag.default_text, given);
  }
  for (int i = 1; i < argc; ++i) {
    absl::string_view name = argv[i];
    if (name == "--help" || name == "-h")
      return given.command.action = Action::kHelp, absl::OkStatus();
    if (name == "--version") return given.command.action = Action::kVersion, absl::OkStatus();
    if (!absl::ConsumePrefix(&name, "--")) {
      return Usage(absl::StrCat("unexpected argument '", argv[i], "'"));
    }
    const size_t equals = name.find('=');
    absl::string_view value = "true";
    const bool has_value = equals != absl::string_view::npos;
    if (has_value) value = name.substr(equals + 1);
    name = name.substr(0, equals);
    const Flag* flag = FindFlag(name);
    if (flag == nullptr) return Usage(absl::StrCat("unknown flag '--", name, "'"));
    if (!has_value && !flag->is_switch) {
      if (++i == argc) return Usage(absl::StrCat("--", name, " needs a value"));
      value = argv[i];
    }
    if (!flag->set(value, given)) {
      return Usage(absl::StrCat("--", name, " takes ", flag->valid, ", not '", value, "'"));
    }
  }
  return absl::OkStatus();
}

absl::Status CheckSize(const Model& model, int64_t request_bytes) {
  if (NumElements(model, request_bytes) > 0) return absl::OkStatus();
  return Usage(
      absl::StrCat("a request of ", request_bytes, " bytes has no element of '", model.name, "'"));
}

// Checks a load, and resolves what depends on other flags or on the machine.
absl::Status Complete(Given& given) {
  LoadOptions& load = given.command.load;
  for (const WeightedSize& size : load.request_bytes) {
    const absl::Status status = CheckSize(*load.model, size.bytes);
    if (!status.ok()) return status;
    if (given.command.client == ClientKind::kRaw && size.bytes > kMaxRawRequestBytes) {
      return Usage(absl::StrCat("a request of ", server::FormatByteSize(size.bytes),
                                " does not fit into a message: it takes --client=library"));
    }
  }
  load.num_in_flight = given.command.pace.rate > 0 ? given.max_outstanding : given.in_flight;
  // The library splits a large request over its connections.
  if (given.command.client == ClientKind::kRaw) {
    load.num_connections = std::min(load.num_connections, load.num_in_flight);
  }
  // The server, if it is here, wants the other half.
  const int half = std::max(1, static_cast<int>(std::thread::hardware_concurrency()) / 2);
  load.num_threads = std::min(given.threads > 0 ? given.threads : half, load.num_connections);
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<CommandLine> ParseCommandLine(int argc, const char* const* argv) {
  Given given;
  absl::Status status = SetFlags(argc, argv, given);
  if (status.ok() && given.command.action == Action::kLoad) status = Complete(given);
  if (status.ok() && given.command.action == Action::kServeEcho) {
    for (const int64_t bytes : given.command.echo_bytes) {
      status.Update(CheckSize(*given.command.echo_model, bytes));
    }
  }
  if (!status.ok()) return status;
  return given.command;
}

std::string HelpText() {
  std::string text =
      "Puts load on a server of the Open Inference Protocol and measures it, or serves the bare "
      "echo:\n"
      "a server that moves the same bytes and computes nothing.\n"
      "\n"
      "Usage: swiglu-bench [--FLAG=VALUE]...\n"
      "\n";
  for (const Flag& flag : kFlags) {
    const std::string value = flag.default_text.empty() ? "" : absl::StrCat("=", flag.default_text);
    absl::StrAppend(&text, "  --", flag.name, value, "\n      ", flag.help, "\n      (", flag.valid,
                    ")\n");
  }
  absl::StrAppend(
      &text,
      "  --version\n"
      "      print the version\n"
      "\n"
      "SIGINT and SIGTERM end a load early: requests under way are waited for, and what "
      "was measured is\n"
      "printed. Another one after a second ends it at once.\n"
      "\n"
      "GB/s counts the bytes of tensors. Exit codes: 0 done, 1 bad input, 2 usage, 3 "
      "server unreachable\n"
      "or not ready, 4 every request failed.\n");
  return text;
}

const char* Name(ClientKind client) { return client == ClientKind::kRaw ? "raw" : "library"; }

const char* Name(Arrivals arrivals) {
  return arrivals == Arrivals::kPoisson ? "poisson" : "constant";
}

}  // namespace swiglu::bench
