// SPDX-License-Identifier: Apache-2.0
//
// The table of flags, and which of their sources counts.
#include "server/flags.h"

#include <algorithm>
#include <charconv>
#include <functional>
#include <limits>
#include <thread>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "server/base/address.h"
#include "server/base/byte_size.h"
#include "server/base/command_line.h"
#include "server/base/flag_values.h"
#include "server/base/manual_page.h"
#include "server/base/memory_limit.h"
#include "server/weights/mlp_spec.h"
#include "version/version.h"

namespace swiglu::server {
namespace {

constexpr char kVariablePrefix[] = "SWIGLU_SERVER";

constexpr int64_t kMaxRequestBytes = std::numeric_limits<int32_t>::max();  // 2 GiB - 1

// The longest time for which a connection can be told anything: the library counts milliseconds
// in 31 bits.
constexpr absl::Duration kLongest = absl::Hours(24 * 20);

std::string DefaultIoThreads() {
  return absl::StrCat(std::clamp(static_cast<int>(std::thread::hardware_concurrency()), 1, 8));
}

constexpr int64_t kAnyBytes = std::numeric_limits<int64_t>::max();

std::string DefaultPinnedBytes() {
  return FormatByteSize(std::max<int64_t>(1, MemoryLimitBytes() / 2));
}

std::string DefaultMemoryBudget() {
  return FormatByteSize(std::max<int64_t>(2, MemoryLimitBytes() / 4));
}

bool IsHostPortOrNothing(absl::string_view text) {
  return text.empty() || ParseHostPort(text).has_value();
}

ReadValue OnOrOff(bool* field) { return OneOf<bool>(field, {{"on", true}, {"off", false}}); }

bool IsFileNamePrefix(absl::string_view text) {
  return text.size() <= 255 && !absl::StrContains(text, "..") &&
         std::all_of(text.begin(), text.end(), [](char c) {
           return absl::ascii_isalnum(c) || c == '.' || c == '_' || c == '-';
         });
}

bool IsSomething(absl::string_view text) { return !text.empty(); }

ReadValue ConfigFile(std::string* field) {
  ReadValue read = Text(field, IsSomething);
  read.kind = ValueKind::kFile;
  return read;
}

// Different numbers; none for "all".
ReadValue Ordinals(std::vector<int>* field) {
  return [field](absl::string_view text) {
    field->clear();
    if (text == "all") return true;
    for (absl::string_view part : absl::StrSplit(text, ',')) {
      int ordinal = -1;
      if (!absl::SimpleAtoi(part, &ordinal) || ordinal < 0) return false;
      if (std::find(field->begin(), field->end(), ordinal) != field->end()) return false;
      field->push_back(ordinal);
    }
    return true;
  };
}

// One to four octal digits.
ReadValue FileMode(int* field) {
  return [field](absl::string_view text) {
    const char* const end = text.data() + text.size();
    unsigned mode = 0;  // of which no text has a sign
    const bool is_octal = std::from_chars(text.data(), end, mode, 8).ptr == end;
    *field = static_cast<int>(mode);
    return is_octal && !text.empty() && text.size() <= 4 && mode <= 0777;
  };
}

// Zero, or as long as a connection can be told.
ReadValue OffOrTime(absl::Duration* field) {
  return [field](absl::string_view text) {
    return absl::ParseDuration(text, field) &&
           (*field == absl::ZeroDuration() || (absl::Seconds(1) <= *field && *field <= kLongest));
  };
}

ReadValue Service(std::optional<std::string>* field) {
  return [field](absl::string_view text) { return *field = std::string(text), true; };
}

// The MLP with that name in `mlps`, added if there is none.
MlpSpec& MlpNamed(const std::string& name, std::vector<MlpSpec>& mlps) {
  for (MlpSpec& mlp : mlps) {
    if (mlp.name == name) return mlp;
  }
  return mlps.emplace_back(MlpSpec{name, "", std::nullopt});
}

// One text for `parse`, or several of them with commas between them. `keep` takes each that is
// good.
template <typename Parsed>
ReadValue ListOf(absl::StatusOr<Parsed> (*parse)(absl::string_view),
                 std::function<void(const Parsed&)> keep) {
  return [parse, keep = std::move(keep)](absl::string_view text) {
    for (const absl::string_view part : absl::StrSplit(text, ',')) {
      const absl::StatusOr<Parsed> parsed = parse(part);
      if (!parsed.ok()) return false;
      keep(*parsed);
    }
    return true;
  };
}

ReadValue MlpPaths(std::vector<MlpSpec>* field) {
  return ListOf<MlpSpec>(
      ParseMlpSpec, [field](const MlpSpec& spec) { MlpNamed(spec.name, *field).path = spec.path; });
}

// An MLP without a path is one that no --mlp names.
ReadValue MlpLayers(std::vector<MlpSpec>* field) {
  return ListOf<MlpLayersOf>(ParseMlpLayers, [field](const MlpLayersOf& layers) {
    MlpNamed(layers.name, *field).layers = layers.layers;
  });
}

absl::Status CheckMlps(const std::vector<MlpSpec>& mlps) {
  for (const MlpSpec& mlp : mlps) {
    if (!mlp.path.empty()) continue;
    return absl::InvalidArgumentError(
        absl::StrCat("--mlp_layers names the MLP '", mlp.name, "', which no --mlp names"));
  }
  const absl::Status names = CheckMlpNames(mlps);
  return names.ok() ? names : absl::InvalidArgumentError(absl::StrCat("--mlp: ", names.message()));
}

// What is for the program rather than for the server.
struct Orders {
  bool help = false;
  bool manual = false;
  bool version = false;
  std::string config;
};

// Every flag, in the order of --help.
std::vector<Flag> FlagsInto(Flags* flags, Orders* orders) {
  const absl::Duration zero = absl::ZeroDuration();
  const absl::Duration second = absl::Seconds(1);
  const absl::Duration day = absl::Hours(24);
  const FlagTraits nothing_is_on = {.implied = "on"};
  const FlagTraits of_machine = {.has_default_of_machine = true};
  const FlagTraits argument_only = {.is_argument_only = true};
  const FlagTraits health = {.implied = "", .is_argument_only = true};
  const FlagTraits order = {.implied = "true", .is_argument_only = true};
  return {
      {"grpc_address", "127.0.0.1:8001", "Where to serve gRPC.", "HOST:PORT or unix:/path",
       Text(&flags->grpc_address, IsAddress)},
      {"metrics_address", "127.0.0.1:8002",
       "Where to serve the Prometheus page /metrics; empty for none.", "HOST:PORT or nothing",
       Text(&flags->metrics_address, IsHostPortOrNothing)},
      {"device", "auto",
       "What to compute on; auto takes CUDA if a device answers, else the CPU, and logs which and "
       "why.",
       "auto, cpu or cuda",
       OneOf<DeviceKind>(
           &flags->device,
           {{"auto", DeviceKind::kAuto}, {"cpu", DeviceKind::kCpu}, {"cuda", DeviceKind::kCuda}})},
      {"devices", "all", "The CUDA devices to use.",
       "all or different numbers from 0 on, as in 0,1", Ordinals(&flags->devices)},
      {"lanes_per_device", "0",
       "Batches in flight on each device; 0 for three on a CUDA device, one of them only for large "
       "batches, and one per core on the CPU.",
       "a number from 0 to 64", Number(&flags->lanes_per_device, 0, 64)},
      {"io_threads", DefaultIoThreads(),
       "The most threads that move requests and responses, and compute on the CPU; as many run as "
       "the load keeps busy. By default one per core, at most 8.",
       "a number from 1 to 256", Number(&flags->io_threads, 1, 256), of_machine},
      {"memory_budget_bytes", DefaultMemoryBudget(),
       "Memory that requests can make the server hold, half for messages that come in and half for "
       "tensors in work and answers; by default a quarter of the machine's or container's.",
       "2 or more bytes, as in 1073741824, 512MiB or 2GiB",
       Bytes(&flags->memory_budget_bytes, 2, std::numeric_limits<int64_t>::max()), of_machine},
      {"max_request_bytes", FormatByteSize(kMaxRequestBytes),
       "The largest request or response message.", "1 to 2147483647 bytes, as in 1048576 or 64MiB",
       Bytes(&flags->max_request_bytes, 1, kMaxRequestBytes)},
      {"max_queued_requests", "4096",
       "Accepted requests that may wait for a device; further ones are refused.",
       "a number from 1 to 1000000", Number(&flags->max_queued_requests, 1, 1'000'000)},
      {"max_queue_delay", "0",
       "How long a request may wait for others to run with; 0 runs it as soon as it can.",
       "a time from 0s to 10s, as in 500us or 2ms",
       Time(&flags->max_queue_delay, zero, absl::Seconds(10))},
      {"stall_timeout", "30s",
       "How long a caller may take to send its message or to take its answer, beyond 1 s for every "
       "16 MiB; then the call is ended.",
       "a time from 1s to 24h, as in 30s or 5m", Time(&flags->stall_timeout, second, day)},
      {"max_connections", "4096",
       "Connections that may be open at once; a further one is closed as soon as it is accepted. "
       "Fewer where the limit of open files of the process (ulimit -n) does not suffice.",
       "a number from 1 to 1000000", Number(&flags->max_connections, 1, 1'000'000)},
      {"unix_socket_mode", "0600", "The permissions of the file of a unix socket.",
       "an octal number from 0000 to 0777, as in 0660", FileMode(&flags->unix_socket_mode)},
      {"max_connection_age", "0",
       "How old a connection may get, give or take a tenth; then its client is told to connect "
       "anew, and balancers spread clients over new servers. 0 for any age.",
       "0 or a time from 1s to 480h, as in 5m or 1h", OffOrTime(&flags->max_connection_age)},
      {"max_connection_age_grace", "5m",
       "How long the calls of a connection that is too old may go on before they are cut off.",
       "a time from 1s to 480h, as in 30s or 5m",
       Time(&flags->max_connection_age_grace, second, kLongest)},
      {"keepalive_time", "30s",
       "A connection that brings nothing for so long is asked whether its client is still there, "
       "by a ping; 0 for never.",
       "0 or a time from 1s to 480h, as in 30s or 5m", OffOrTime(&flags->keepalive_time)},
      {"keepalive_timeout", "0",
       "A connection is closed whose client answers no ping, or takes no byte, for so long; 0 for "
       "as long as --stall_timeout.",
       "0 or a time from 1s to 480h, as in 30s or 5m", OffOrTime(&flags->keepalive_timeout)},
      {"min_ping_interval", "10s",
       "How often a client may ping the server; a connection that pings more often, without "
       "requests in between, is closed. A ping that is a second early is let pass.",
       "a time from 1ms to 480h, as in 10s or 1m",
       Time(&flags->min_ping_interval, absl::Milliseconds(1), kLongest)},
      {"max_metadata_bytes", "32KiB",
       "The most metadata, tokens among it, that a call may have: names, values, and 32 bytes for "
       "each.",
       "1KiB to 256KiB, as in 16384 or 64KiB",
       Bytes(&flags->max_metadata_bytes, 1 << 10, 256 << 10)},
      {"reflection", "off",
       "Whether tools such as grpcurl may ask for the services and their messages.",
       "on or off; nothing is on", OnOrOff(&flags->reflection), nothing_is_on},
      {"system_shared_memory", "off",
       "Whether clients on this host may register files in /dev/shm as regions. Clients of one "
       "server reach each other's regions, by name.",
       "on or off; nothing is on", OnOrOff(&flags->system_shared_memory), nothing_is_on},
      {"system_shared_memory_prefix", "",
       "What the names of these files must begin with; empty for any name.",
       "nothing, or letters, digits, '.', '_' and '-', as in app_",
       Text(&flags->system_shared_memory_prefix, IsFileNamePrefix)},
      {"cuda_shared_memory", "off",
       "Whether clients on this host may register memory of the server's GPUs as regions.",
       "on or off; nothing is on", OnOrOff(&flags->cuda_shared_memory), nothing_is_on},
      {"max_regions", "1024", "Regions that may be registered at once.", "a number from 1 to 65536",
       Number(&flags->max_regions, 1, 65536)},
      {"max_region_bytes", "0", "The largest region; 0 for any size.",
       "0 or more bytes, as in 1073741824, 512MiB or 2GiB",
       Bytes(&flags->max_region_bytes, 0, kAnyBytes)},
      {"max_pinned_bytes", DefaultPinnedBytes(),
       "Memory of all registered system regions together; by default half of the machine's or "
       "container's. A client's file is charged to the server that pins it.",
       "1 or more bytes, as in 1073741824, 512MiB or 2GiB",
       Bytes(&flags->max_pinned_bytes, 1, kAnyBytes), of_machine},
      {"region_idle_timeout", "0",
       "A region that no request has used for so long is unregistered; 0 for never.",
       "0 or a time from 1s to 480h, as in 5m or 1h", OffOrTime(&flags->region_idle_timeout)},
      {"mlp", "",
       "SwiGLU MLPs to compute with weights of the server's own. PATH is a .safetensors file, or a "
       "folder as Hugging Face has them. May be repeated.",
       "NAME=PATH[,NAME=PATH]..., a NAME of a-z, 0-9 and _", MlpPaths(&flags->mlps)},
      {"mlp_layers", "", "The layers of an MLP to serve, from a to b - 1. May be repeated.",
       "NAME=a:b[,NAME=a:b]...", MlpLayers(&flags->mlps)},
      {"mlp_max_batch_tokens", "512", "The most tokens that pass through an MLP together.",
       "a number from 1 to 65536", Number(&flags->mlp_max_batch_tokens, 1, 65536)},
      {"mlp_replicas", "1", "The CUDA devices on which each layer of an MLP lies.",
       "a number from 1 to 64", Number(&flags->mlp_replicas, 1, 64)},
      {"mlp_control", "off",
       "Whether clients may make the server read the weights of an MLP anew (RepositoryModelLoad).",
       "on or off; nothing is on", OnOrOff(&flags->mlp_control), nothing_is_on},
      {"drain_delay", "0",
       "How long to serve on after the first signal while reporting NOT_SERVING.",
       "a time from 0s to 24h, as in 500ms or 1m30s", Time(&flags->drain_delay, zero, day)},
      {"drain_timeout", "30s", "After that, how long accepted requests may take to finish.",
       "a time from 0s to 24h, as in 500ms or 1m30s", Time(&flags->drain_timeout, zero, day)},
      {"log_level", "info",
       "The least severe lines to log. SIGHUP switches to debug, and the next one back.",
       "debug, info, warning or error",
       Word(&flags->log_level, {"debug", "info", "warning", "error"})},
      {"log_format", "text", "How lines are logged on stderr.", "text or json",
       Word(&flags->log_format, {"text", "json"})},
      {"log_peers", "on", "Whether the lines about requests name the address that they came from.",
       "on or off", OnOrOff(&flags->log_peers)},
      {"config", "", "A file that sets flags, in lines such as `io_threads = 4`.",
       "the path of a file", ConfigFile(&orders->config), argument_only},
      {"health", "",
       "Ask the server at --grpc_address whether this service is healthy, wait 2 s at most, and "
       "exit with 0 if it is, else 1; without a name, the whole server.",
       "nothing or a service's name", Service(&flags->health), health},
      {"manual", "", "Print the manual page, in the language of man(7), and exit.",
       "nothing, true or false", Truth(&orders->manual), order},
      {"version", "", "Print the version and exit.", "nothing, true or false",
       Truth(&orders->version), order},
      {"help", "", "Print this and exit.", "nothing, true or false", Truth(&orders->help), order},
  };
}

constexpr char kNotes[] =
    "The variable SWIGLU_SERVER_IO_THREADS of the environment sets --io_threads, and likewise for\n"
    "every flag but --config, --health, --manual, --version and --help. The command line counts\n"
    "before the environment, the environment before the file of --config, and the file before the\n"
    "default.\n"
    "The values of --mlp and --mlp_layers add up; for the same NAME, this order counts.\n";

Program ProgramInto(Flags* flags, Orders* orders) {
  return {.name = "swiglu-server",
          .about = "swiglu-server serves SwiGLU forward and backward through gRPC.\n",
          .notes = kNotes,
          .flags = FlagsInto(flags, orders)};
}

std::string ManualText(const Program& program) {
  return ManualPage(program, {.section = 8,
                              .summary = "gRPC server that computes SwiGLU",
                              .version = absl::StrCat("swiglu ", kVersion),
                              .see_also = {"swiglu(1)", "swiglu-bench(1)"}});
}

EarlyExit MistakeOf(const absl::Status& status) {
  return {2, absl::StrCat("swiglu-server: ", status.message(), "\n")};
}

// Reads the file, the environment and the arguments: what is read later counts. The arguments are
// known to be right.
absl::Status ReadAll(const Program& program, const std::string& config, int argc,
                     const char* const* argv, const Environment& environment) {
  SetDefaults(program);
  absl::Status status;
  if (!config.empty()) status = ReadConfigFile(program, config);
  if (status.ok() && environment != nullptr) {
    status = ReadEnvironment(program, kVariablePrefix, environment);
  }
  if (status.ok()) status = ReadArguments(program, argc, argv).status();
  return status;
}

}  // namespace

std::variant<Flags, EarlyExit> ParseFlags(int argc, const char* const* argv,
                                          const Environment& environment) {
  Flags flags;
  Orders orders;
  const Program program = ProgramInto(&flags, &orders);
  // The arguments are read twice: they say which file is read before them.
  absl::Status status = ReadArguments(program, argc, argv).status();
  if (!status.ok()) return MistakeOf(status);
  if (orders.help) return EarlyExit{0, HelpText(program, "")};
  if (orders.manual) return EarlyExit{0, ManualText(program)};
  if (orders.version) {
    return EarlyExit{0, absl::StrCat("swiglu-server ", kVersion, " (commit ", kCommit, ", cuda ",
                                     kCudaVersion, ")\n")};
  }
  status = ReadAll(program, orders.config, argc, argv, environment);
  if (status.ok()) status = CheckMlps(flags.mlps);
  if (!status.ok()) return MistakeOf(status);
  if (flags.keepalive_timeout == absl::ZeroDuration()) {
    flags.keepalive_timeout = flags.stall_timeout;
  }
  return flags;
}

}  // namespace swiglu::server
