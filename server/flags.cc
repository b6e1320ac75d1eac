// SPDX-License-Identifier: Apache-2.0
//
// The flags, and a parser over absl's flag registry. absl's own parser prints several lines and
// exits with 1; here a mistake is one line and the caller's to report.
#include "server/flags.h"

#include <algorithm>
#include <limits>
#include <optional>
#include <thread>
#include <utility>

#include "absl/flags/flag.h"
#include "absl/flags/reflection.h"
#include "absl/strings/escaping.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "server/base/address.h"
#include "server/base/byte_size.h"
#include "server/memory_limit.h"
#include "version/version.h"

namespace swiglu::server {

// Types of flags. absl finds their parsers by name in this namespace.

struct ByteSize {
  int64_t bytes = 0;
};
bool AbslParseFlag(absl::string_view text, ByteSize* size, std::string*) {
  const std::optional<int64_t> bytes = ParseByteSize(text);
  if (bytes.has_value()) size->bytes = *bytes;
  return bytes.has_value();
}
std::string AbslUnparseFlag(ByteSize size) { return FormatByteSize(size.bytes); }

struct Ordinals {
  std::vector<int> devices;  // empty: all
};
bool AbslParseFlag(absl::string_view text, Ordinals* ordinals, std::string*) {
  ordinals->devices.clear();
  if (text == "all") return true;
  for (absl::string_view part : absl::StrSplit(text, ',')) {
    int ordinal = -1;
    if (!absl::SimpleAtoi(part, &ordinal) || ordinal < 0) return false;
    ordinals->devices.push_back(ordinal);
  }
  return true;
}
std::string AbslUnparseFlag(const Ordinals& ordinals) {
  return ordinals.devices.empty() ? "all" : absl::StrJoin(ordinals.devices, ",");
}

bool AbslParseFlag(absl::string_view text, DeviceKind* device, std::string*) {
  if (text == "auto") return *device = DeviceKind::kAuto, true;
  if (text == "cpu") return *device = DeviceKind::kCpu, true;
  if (text == "cuda") return *device = DeviceKind::kCuda, true;
  return false;
}
std::string AbslUnparseFlag(DeviceKind device) {
  return device == DeviceKind::kAuto ? "auto" : device == DeviceKind::kCpu ? "cpu" : "cuda";
}

struct FileMode {
  int mode = 0;
};
bool AbslParseFlag(absl::string_view text, FileMode* mode, std::string*) {
  mode->mode = 0;
  if (text.empty() || text.size() > 4) return false;
  for (const char c : text) {
    if (c < '0' || c > '7') return false;
    mode->mode = mode->mode * 8 + (c - '0');
  }
  return mode->mode <= 0777;
}
std::string AbslUnparseFlag(FileMode mode) { return absl::StrFormat("%04o", mode.mode); }
// A flag that is on or off.
struct Switch {
  bool on = false;
};
bool AbslParseFlag(absl::string_view text, Switch* value, std::string*) {
  value->on = text == "on";
  return text == "on" || text == "off";
}
std::string AbslUnparseFlag(Switch value) { return value.on ? "on" : "off"; }

struct HealthQuery {
  bool asked = false;
  std::string service;
};
bool AbslParseFlag(absl::string_view text, HealthQuery* query, std::string*) {
  *query = {true, std::string(text)};
  return true;
}
std::string AbslUnparseFlag(const HealthQuery& query) { return query.service; }

namespace {

constexpr int64_t kMaxRequestBytes = std::numeric_limits<int32_t>::max();  // 2 GiB - 1

int DefaultIoThreads() {
  return std::clamp(static_cast<int>(std::thread::hardware_concurrency()), 1, 8);
}

ByteSize DefaultMemoryBudget() { return {std::max<int64_t>(2, MemoryLimitBytes() / 4)}; }

}  // namespace
}  // namespace swiglu::server

// The flags. absl wants them outside of any namespace.

ABSL_FLAG(std::string, grpc_address, "127.0.0.1:8001", "Where to serve gRPC.");
ABSL_FLAG(std::string, metrics_address, "127.0.0.1:8002",
          "Where to serve the Prometheus page /metrics; empty for none.");
ABSL_FLAG(swiglu::server::DeviceKind, device, swiglu::server::DeviceKind::kAuto,
          "What to compute on; auto takes CUDA if a device answers, else the CPU, and logs which "
          "and why.");
ABSL_FLAG(swiglu::server::Ordinals, devices, {}, "The CUDA devices to use.");
ABSL_FLAG(int32_t, lanes_per_device, 0,
          "Batches in flight on each device; 0 for two on a CUDA device and one per core on the "
          "CPU.");
ABSL_FLAG(int32_t, io_threads, swiglu::server::DefaultIoThreads(),
          "The most threads that move requests and responses, and compute on the CPU; as many run "
          "as the load keeps busy. By default one per core, at most 8.");
ABSL_FLAG(swiglu::server::ByteSize, memory_budget_bytes, swiglu::server::DefaultMemoryBudget(),
          "Memory that requests can make the server hold, half for messages that come in and half "
          "for tensors in work and answers; by default a quarter of the machine's or container's.");
ABSL_FLAG(swiglu::server::ByteSize, max_request_bytes, {swiglu::server::kMaxRequestBytes},
          "The largest request or response message.");
ABSL_FLAG(int64_t, max_queued_requests, 4096,
          "Accepted requests that may wait for a device; further ones are refused.");
ABSL_FLAG(absl::Duration, max_queue_delay, absl::ZeroDuration(),
          "How long a request may wait for others to run with; 0 runs it as soon as it can.");
ABSL_FLAG(absl::Duration, stall_timeout, absl::Seconds(30),
          "How long a caller may take to send its message or to take its answer, beyond 1 s for "
          "every 16 MiB; then the call is ended.");
ABSL_FLAG(
    int64_t, max_connections, 4096,
    "Connections that may be open at once; a further one is closed as soon as it is accepted. "
    "Fewer where the limit of open files of the process (ulimit -n) does not suffice.");
ABSL_FLAG(swiglu::server::FileMode, unix_socket_mode, {0600},
          "The permissions of the file of a unix socket.");
ABSL_FLAG(absl::Duration, max_connection_age, absl::ZeroDuration(),
          "How old a connection may get, give or take a tenth; then its client is told to connect "
          "anew, and balancers spread clients over new servers. 0 for any age.");
ABSL_FLAG(absl::Duration, max_connection_age_grace, absl::Minutes(5),
          "How long the calls of a connection that is too old may go on before they are cut off.");
ABSL_FLAG(
    absl::Duration, keepalive_time, absl::Seconds(30),
    "A connection that brings nothing for so long is asked whether its client is still there, "
    "by a ping; 0 for never.");
ABSL_FLAG(absl::Duration, keepalive_timeout, absl::ZeroDuration(),
          "A connection is closed whose client answers no ping, or takes no byte, for so long; 0 "
          "for as long as --stall_timeout.");
ABSL_FLAG(absl::Duration, min_ping_interval, absl::Seconds(10),
          "How often a client may ping the server; a connection that pings more often, without "
          "requests in between, is closed. A ping that is a second early is let pass.");
ABSL_FLAG(
    swiglu::server::ByteSize, max_metadata_bytes, {32 << 10},
    "The most metadata, tokens among it, that a call may have: names, values, and 32 bytes for "
    "each.");
ABSL_FLAG(swiglu::server::Switch, reflection, {false},
          "Whether tools such as grpcurl may ask for the services and their messages.");
ABSL_FLAG(absl::Duration, drain_delay, absl::ZeroDuration(),
          "How long to serve on after the first signal while reporting NOT_SERVING.");
ABSL_FLAG(absl::Duration, drain_timeout, absl::Seconds(30),
          "After that, how long accepted requests may take to finish.");
ABSL_FLAG(std::string, log_level, "info",
          "The least severe lines to log. SIGHUP switches to debug, and the next one back.");
ABSL_FLAG(std::string, log_format, "text", "How lines are logged on stderr.");
ABSL_FLAG(swiglu::server::Switch, log_peers, {true},
          "Whether the lines about requests name the address that they came from.");
ABSL_FLAG(swiglu::server::HealthQuery, health, {},
          "Ask the server at --grpc_address whether this service is healthy, wait 2 s at most, and "
          "exit with 0 if it is, else 1; without a name, the whole server.");
ABSL_FLAG(bool, version, false, "Print the version and exit.");
ABSL_FLAG(bool, help, false, "Print this and exit.");

namespace swiglu::server {
namespace {

template <typename T>
bool InRange(T value, T least, T most) {
  return least <= value && value <= most;
}

bool IsDrainTime(absl::Duration time) {
  return InRange(time, absl::ZeroDuration(), absl::Hours(24));
}

// The longest time for which a connection can be told anything: the library counts milliseconds
// in 31 bits.
constexpr absl::Duration kLongest = absl::Hours(24 * 20);

bool IsTime(absl::Duration time) { return InRange(time, absl::Seconds(1), kLongest); }

bool IsOffOrTime(absl::Duration time) { return time == absl::ZeroDuration() || IsTime(time); }

bool AllDifferent(std::vector<int> values) {
  std::sort(values.begin(), values.end());
  return std::adjacent_find(values.begin(), values.end()) == values.end();
}

// What a flag takes beyond its type.
struct Rule {
  const char* name;
  // For people; completes "want ...".
  const char* valid;
  // Whether the flag's value, as set, is valid.
  bool (*is_valid)();
  // May be given without a value, which then is this; nullptr if not.
  const char* implied = nullptr;
  // Whether --help shows its default; some have none to speak of.
  bool shows_default = true;
};

bool Anything() { return true; }

// Every flag, in the order of --help.
constexpr Rule kRules[] = {
    {"grpc_address", "HOST:PORT or unix:/path",
     [] { return IsAddress(absl::GetFlag(FLAGS_grpc_address)); }},
    {"metrics_address", "HOST:PORT or nothing",
     [] {
       const std::string address = absl::GetFlag(FLAGS_metrics_address);
       return address.empty() || ParseHostPort(address).has_value();
     }},
    {"device", "auto, cpu or cuda", Anything},
    {"devices", "all or different numbers from 0 on, as in 0,1",
     [] { return AllDifferent(absl::GetFlag(FLAGS_devices).devices); }},
    {"lanes_per_device", "a number from 0 to 64",
     [] { return InRange(absl::GetFlag(FLAGS_lanes_per_device), 0, 64); }},
    {"io_threads", "a number from 1 to 256",
     [] { return InRange(absl::GetFlag(FLAGS_io_threads), 1, 256); }},
    {"memory_budget_bytes", "2 or more bytes, as in 1073741824, 512MiB or 2GiB",
     [] { return absl::GetFlag(FLAGS_memory_budget_bytes).bytes >= 2; }},
    {"max_request_bytes", "1 to 2147483647 bytes, as in 1048576 or 64MiB",
     [] {
       return InRange<int64_t>(absl::GetFlag(FLAGS_max_request_bytes).bytes, 1, kMaxRequestBytes);
     }},
    {"max_queued_requests", "a number from 1 to 1000000",
     [] { return InRange<int64_t>(absl::GetFlag(FLAGS_max_queued_requests), 1, 1'000'000); }},
    {"max_queue_delay", "a time from 0s to 10s, as in 500us or 2ms",
     [] {
       return InRange(absl::GetFlag(FLAGS_max_queue_delay), absl::ZeroDuration(),
                      absl::Seconds(10));
     }},
    {"stall_timeout", "a time from 1s to 24h, as in 30s or 5m",
     [] { return InRange(absl::GetFlag(FLAGS_stall_timeout), absl::Seconds(1), absl::Hours(24)); }},
    {"max_connections", "a number from 1 to 1000000",
     [] { return InRange<int64_t>(absl::GetFlag(FLAGS_max_connections), 1, 1'000'000); }},
    {"unix_socket_mode", "an octal number from 0000 to 0777, as in 0660", Anything},
    {"max_connection_age", "0 or a time from 1s to 480h, as in 5m or 1h",
     [] { return IsOffOrTime(absl::GetFlag(FLAGS_max_connection_age)); }},
    {"max_connection_age_grace", "a time from 1s to 480h, as in 30s or 5m",
     [] { return IsTime(absl::GetFlag(FLAGS_max_connection_age_grace)); }},
    {"keepalive_time", "0 or a time from 1s to 480h, as in 30s or 5m",
     [] { return IsOffOrTime(absl::GetFlag(FLAGS_keepalive_time)); }},
    {"keepalive_timeout", "0 or a time from 1s to 480h, as in 30s or 5m",
     [] { return IsOffOrTime(absl::GetFlag(FLAGS_keepalive_timeout)); }},
    {"min_ping_interval", "a time from 1ms to 480h, as in 10s or 1m",
     [] {
       return InRange(absl::GetFlag(FLAGS_min_ping_interval), absl::Milliseconds(1), kLongest);
     }},
    {"max_metadata_bytes", "1KiB to 256KiB, as in 16384 or 64KiB",
     [] {
       return InRange<int64_t>(absl::GetFlag(FLAGS_max_metadata_bytes).bytes, 1 << 10, 256 << 10);
     }},
    {"reflection", "on or off; nothing is on", Anything, "on"},
    {"drain_delay", "a time from 0s to 24h, as in 500ms or 1m30s",
     [] { return IsDrainTime(absl::GetFlag(FLAGS_drain_delay)); }},
    {"drain_timeout", "a time from 0s to 24h, as in 500ms or 1m30s",
     [] { return IsDrainTime(absl::GetFlag(FLAGS_drain_timeout)); }},
    {"log_level", "debug, info, warning or error",
     [] {
       const std::string level = absl::GetFlag(FLAGS_log_level);
       return level == "debug" || level == "info" || level == "warning" || level == "error";
     }},
    {"log_format", "text or json",
     [] {
       const std::string format = absl::GetFlag(FLAGS_log_format);
       return format == "text" || format == "json";
     }},
    {"log_peers", "on or off", Anything},
    {"health", "nothing or a service's name", Anything, "", false},
    {"version", "nothing, true or false", Anything, "true", false},
    {"help", "nothing, true or false", Anything, "true", false},
};

const Rule* FindRule(absl::string_view name) {
  for (const Rule& rule : kRules) {
    if (rule.name == name) return &rule;
  }
  return nullptr;
}

// A caller's text, on one line and not too long.
std::string Shown(absl::string_view text) {
  constexpr size_t kMaxShown = 200;
  std::string shown = absl::Utf8SafeCHexEscape(text.substr(0, kMaxShown));
  if (text.size() > kMaxShown) shown += "...";
  return shown;
}

EarlyExit Mistake(absl::string_view what) {
  return {2, absl::StrCat("swiglu-server: ", what, "\n")};
}

// Every call of ParseFlags starts from the defaults.
void ResetFlags() {
  std::string unused_error;
  for (const Rule& rule : kRules) {
    absl::CommandLineFlag& flag = *absl::FindCommandLineFlag(rule.name);
    flag.ParseFrom(flag.DefaultValue(), &unused_error);
  }
  absl::SetFlag(&FLAGS_health, HealthQuery());  // its default has no text
}

// Sets the flags from the arguments. A mistake comes back; the flags are then in any state.
std::optional<EarlyExit> SetFlags(int argc, const char* const* argv) {
  for (int i = 1; i < argc; ++i) {
    absl::string_view argument = argv[i];
    if (!absl::ConsumePrefix(&argument, "--") || argument.empty()) {
      return Mistake(absl::StrCat("unexpected argument '", Shown(argv[i]),
                                  "': only flags are taken, see --help"));
    }
    const size_t equals = argument.find('=');
    const absl::string_view name = argument.substr(0, equals);
    const Rule* rule = FindRule(name);
    if (rule == nullptr) {
      return Mistake(absl::StrCat("unknown flag '--", Shown(name), "', see --help"));
    }
    absl::string_view value;
    if (equals != absl::string_view::npos) {
      value = argument.substr(equals + 1);
    } else if (rule->implied != nullptr) {
      value = rule->implied;
    } else if (i + 1 < argc) {
      value = argv[++i];
    } else {
      return Mistake(absl::StrCat("--", name, " needs a value: want ", rule->valid));
    }
    std::string unused_error;
    if (!absl::FindCommandLineFlag(name)->ParseFrom(value, &unused_error) || !rule->is_valid()) {
      return Mistake(absl::StrCat("--", name, "=", Shown(value), ": want ", rule->valid));
    }
  }
  return std::nullopt;
}

std::string HelpText() {
  std::string text =
      "swiglu-server serves SwiGLU forward and backward through gRPC.\n"
      "\n"
      "Usage: swiglu-server [--FLAG=VALUE]...\n"
      "\n";
  for (const Rule& rule : kRules) {
    const absl::CommandLineFlag& flag = *absl::FindCommandLineFlag(rule.name);
    const std::string default_value =
        rule.shows_default ? absl::StrCat("=", flag.DefaultValue()) : "";
    absl::StrAppend(&text, "  --", rule.name, default_value, "\n      ", flag.Help(), "\n      (",
                    rule.valid, ")\n");
  }
  return text;
}

Flags CurrentFlags() {
  Flags flags;
  flags.grpc_address = absl::GetFlag(FLAGS_grpc_address);
  flags.metrics_address = absl::GetFlag(FLAGS_metrics_address);
  flags.device = absl::GetFlag(FLAGS_device);
  flags.devices = absl::GetFlag(FLAGS_devices).devices;
  flags.lanes_per_device = absl::GetFlag(FLAGS_lanes_per_device);
  flags.io_threads = absl::GetFlag(FLAGS_io_threads);
  flags.memory_budget_bytes = absl::GetFlag(FLAGS_memory_budget_bytes).bytes;
  flags.max_request_bytes = absl::GetFlag(FLAGS_max_request_bytes).bytes;
  flags.max_queued_requests = absl::GetFlag(FLAGS_max_queued_requests);
  flags.max_queue_delay = absl::GetFlag(FLAGS_max_queue_delay);
  flags.stall_timeout = absl::GetFlag(FLAGS_stall_timeout);
  flags.max_connections = absl::GetFlag(FLAGS_max_connections);
  flags.unix_socket_mode = absl::GetFlag(FLAGS_unix_socket_mode).mode;
  flags.reflection = absl::GetFlag(FLAGS_reflection).on;
  flags.max_connection_age = absl::GetFlag(FLAGS_max_connection_age);
  flags.max_connection_age_grace = absl::GetFlag(FLAGS_max_connection_age_grace);
  flags.keepalive_time = absl::GetFlag(FLAGS_keepalive_time);
  flags.keepalive_timeout = absl::GetFlag(FLAGS_keepalive_timeout);
  if (flags.keepalive_timeout == absl::ZeroDuration()) {
    flags.keepalive_timeout = flags.stall_timeout;
  }
  flags.min_ping_interval = absl::GetFlag(FLAGS_min_ping_interval);
  flags.max_metadata_bytes = absl::GetFlag(FLAGS_max_metadata_bytes).bytes;
  flags.drain_delay = absl::GetFlag(FLAGS_drain_delay);
  flags.drain_timeout = absl::GetFlag(FLAGS_drain_timeout);
  flags.log_level = absl::GetFlag(FLAGS_log_level);
  flags.log_format = absl::GetFlag(FLAGS_log_format);
  flags.log_peers = absl::GetFlag(FLAGS_log_peers).on;
  const HealthQuery health = absl::GetFlag(FLAGS_health);
  if (health.asked) flags.health = health.service;
  return flags;
}

}  // namespace

std::variant<Flags, EarlyExit> ParseFlags(int argc, const char* const* argv) {
  ResetFlags();
  if (std::optional<EarlyExit> mistake = SetFlags(argc, argv)) return *std::move(mistake);
  if (absl::GetFlag(FLAGS_help)) return EarlyExit{0, HelpText()};
  if (absl::GetFlag(FLAGS_version)) {
    return EarlyExit{0, absl::StrCat("swiglu-server ", kVersion, " (commit ", kCommit, ", cuda ",
                                     kCudaVersion, ")\n")};
  }
  return CurrentFlags();
}

}  // namespace swiglu::server
