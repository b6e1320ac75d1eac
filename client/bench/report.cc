// SPDX-License-Identifier: Apache-2.0
//
// Computes and formats rates, percentiles and ratios.
#include "client/bench/report.h"

#include <chrono>
#include <cmath>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "client/bench/figures.h"
#include "nlohmann/json.hpp"
#include "server/base/byte_size.h"
#include "version/version.h"

namespace swiglu::bench {
namespace {

using nlohmann::ordered_json;

ordered_json ToJson(absl::optional<double> number) {
  return number ? ordered_json(*number) : ordered_json(nullptr);
}

std::vector<std::pair<const char*, double>> LatenciesMs(const LatencyHistogram& latency) {
  return {{"p50", Ms(latency.Percentile(0.5))},  {"p90", Ms(latency.Percentile(0.9))},
          {"p99", Ms(latency.Percentile(0.99))}, {"p99.9", Ms(latency.Percentile(0.999))},
          {"mean", Ms(latency.Mean())},          {"max", Ms(latency.max())}};
}

std::string FormatLatency(const LatencyHistogram& latency) {
  if (latency.count() == 0) return "-";
  std::string text;
  for (const auto& [name, ms] : LatenciesMs(latency)) {
    absl::StrAppendFormat(&text, "%s%s %.3f", text.empty() ? "" : "  ", name, ms);
  }
  return text + " ms";
}

std::string FormatErrors(const Tally& tally) {
  if (tally.NumFailed() == 0) return "none";
  std::string text;
  for (const auto& [code, count] : tally.num_errors()) {
    absl::StrAppend(&text, absl::StatusCodeToString(code), " ", count, "  ");
  }
  return absl::StrCat(text, "as in '", tally.example().message(), "'");
}

std::string FormatLoop(const CommandLine& command) {
  const std::string in_flight = absl::StrCat(
      command.load.num_in_flight, " in flight",
      command.load.num_callers > 0 ? absl::StrCat(" of ", command.load.num_callers, " callers")
                                   : "");
  if (command.pace.rate == 0) return absl::StrCat("closed loop, ", in_flight);
  return absl::StrCat("open loop, ", command.pace.rate, "/s ", Name(command.pace.arrivals),
                      ", at most ", in_flight);
}

// The tokens of a mix, such as `8*9,512`.
std::string FormatTokens(const std::vector<WeightedSize>& mix) {
  return absl::StrJoin(mix, ",", [](std::string* text, const WeightedSize& size) {
    absl::StrAppend(text, size.bytes);
    if (size.weight != 1) absl::StrAppend(text, "*", size.weight);
  });
}

// What the requests of a load ask for.
std::string FormatRequests(const LoadOptions& load) {
  const Model& model = *load.model;
  if (!model.is_mlp()) return absl::StrCat(model.name(), " of ", FormatByteMix(load.request_bytes));
  const std::string last = model.names.size() == 1 ? "" : absl::StrCat(" to ", model.names.back());
  return absl::StrCat(model.name(), last, " of ", FormatTokens(load.tokens), " tokens");
}

// The size number k of a load.
std::string FormatSize(const LoadOptions& load, size_t k) {
  return load.model->is_mlp() ? absl::StrCat(load.tokens[k].bytes)
                              : server::FormatByteSize(load.request_bytes[k].bytes);
}

// Tokens per second.
absl::optional<double> TokenRate(const Report& report, const SizeTally& total) {
  return Ratio(static_cast<double>(NumTokens(*report.command.load.model, total.bytes_in)),
               Seconds(report.elapsed));
}

std::string FormatMemory(const LoadOptions& load) {
  if (load.shared_memory == SharedMemory::kNone) return "";
  return absl::StrCat(" in ", Name(load.shared_memory), " shared memory");
}

// How many calls a message of the library carried on average. Less than 1 if calls were split.
absl::optional<double> CallsPerMessage(const MessageTally& messages) {
  return Ratio(static_cast<double>(messages.num_calls), messages.num_messages);
}

// A message that was sent again may belong to calls that do not count. So the sum may be no whole
// number.
int64_t NumRetries(const MessageTally& messages) { return std::llround(messages.num_retries); }

absl::optional<double> CpuSecondsPerGb(const Report& report, const SizeTally& total) {
  return Ratio(report.server->cpu_seconds, Gb(total.bytes_in + total.bytes_out));
}

std::string FormatChecked(const Report& report, int64_t num_checked) {
  if (report.command.load.shared_memory != SharedMemory::kNone) {
    return absl::StrCat("the results of ", num_checked, " requests are right");
  }
  std::string text = absl::StrCat(num_checked, " answers equal the first to an equal request");
  if (report.num_computed.value_or(0) > 0) {
    absl::StrAppend(&text, ", and ", *report.num_computed,
                    " first answers are those of the formula");
  }
  return text;
}

ordered_json Configuration(const CommandLine& command) {
  ordered_json json;
  json["server"] = command.load.server;
  json["model"] = command.load.model->name();
  json["request_bytes"] = FormatByteMix(command.load.request_bytes);
  if (command.load.model->is_mlp()) {
    json["mlp"] = command.load.model->mlp;
    json["layer"] = command.load.model->first_layer;
    json["layers"] = command.load.model->names.size();
    json["hidden_size"] = command.load.model->row_elements;
    json["tokens"] = FormatTokens(command.load.tokens);
  }
  json["client"] = Name(command.client);
  json["shared_memory"] = Name(command.load.shared_memory);
  json["connections"] = command.load.num_connections;
  json["in_flight"] = command.load.num_in_flight;
  if (command.client == ClientKind::kLibrary) {
    json["callers"] = command.load.num_callers;
    json["coalesce_bytes"] = command.load.coalesce_bytes;
    json["max_attempts"] = command.load.max_attempts;
    json["streams"] = command.load.streams;
    json["hedge_delay_seconds"] = absl::ToDoubleSeconds(command.load.hedge_delay);
  }
  json["threads"] = command.load.num_threads;
  json["spin"] = command.load.spin;
  json["rate"] = command.pace.rate;
  json["arrivals"] = Name(command.pace.arrivals);
  json["warm_up_seconds"] = Seconds(command.pace.warm_up);
  json["duration_seconds"] = Seconds(command.pace.duration);
  json["requests"] = command.pace.num_requests;
  json["timeout_seconds"] = absl::ToDoubleSeconds(command.load.timeout);
  json["announce_size"] = command.load.announce_size;
  json["version"] = absl::StrCat(kVersion, " (", kCommit, ")");
  return json;
}

ordered_json LatencyMs(const LatencyHistogram& latency) {
  ordered_json json;
  for (const auto& [name, ms] : LatenciesMs(latency)) {
    json[name] = latency.count() > 0 ? ordered_json(ms) : ordered_json(nullptr);
  }
  return json;
}

ordered_json Sizes(const Report& report) {
  ordered_json sizes = ordered_json::array();
  for (size_t k = 0; k < report.tally.sizes().size(); ++k) {
    const SizeTally& size = report.tally.sizes()[k];
    const LoadOptions& load = report.command.load;
    ordered_json json;
    json["request_bytes"] = load.request_bytes[k].bytes;
    if (load.model->is_mlp()) json["tokens"] = load.tokens[k].bytes;
    json["requests"] = size.latency.count();
    json["latency_ms"] = LatencyMs(size.latency);
    sizes.push_back(std::move(json));
  }
  return sizes;
}

ordered_json Server(const Report& report, const SizeTally& total) {
  ordered_json json;
  json["cpu_seconds"] = report.server->cpu_seconds;
  json["cpu_seconds_per_gb"] = ToJson(CpuSecondsPerGb(report, total));
  json["resident_bytes"] = report.server->resident_bytes;
  if (report.server->resident_high_water_bytes > 0) {
    json["resident_high_water_bytes"] = report.server->resident_high_water_bytes;
  }
  return json;
}

}  // namespace

std::string FormatLoad(const CommandLine& command) {
  return absl::StrFormat("%s%s, %s client, %s, connections %d", FormatRequests(command.load),
                         FormatMemory(command.load), Name(command.client), FormatLoop(command),
                         command.load.num_connections);
}

std::string FormatText(const Report& report) {
  const LoadOptions& load = report.command.load;
  const SizeTally total = report.tally.Total();
  const double seconds = Seconds(report.elapsed);
  std::string text;
  absl::StrAppend(&text, FormatLoad(report.command), "\n");
  if (report.was_stopped) absl::StrAppend(&text, "stopped   before its end\n");
  absl::StrAppendFormat(&text, "requests  %d in %.3f s: %s/s\n", total.latency.count(), seconds,
                        Show(Ratio(static_cast<double>(total.latency.count()), seconds), 2));
  if (load.model->is_mlp()) {
    absl::StrAppendFormat(&text, "tokens    %s/s\n", Show(TokenRate(report, total), 2));
  }
  absl::StrAppendFormat(&text, "moved     %s GB/s in, %s GB/s out\n",
                        Show(Ratio(Gb(total.bytes_in), seconds), 3),
                        Show(Ratio(Gb(total.bytes_out), seconds), 3));
  absl::StrAppendFormat(&text, "latency   %s\n", FormatLatency(total.latency));
  for (size_t k = 0; load.request_bytes.size() > 1 && k < load.request_bytes.size(); ++k) {
    absl::StrAppendFormat(&text, "  %-7s %s\n", FormatSize(load, k),
                          FormatLatency(report.tally.sizes()[k].latency));
  }
  absl::StrAppendFormat(&text, "errors    %s\n", FormatErrors(report.tally));
  if (report.num_checked) {
    absl::StrAppend(&text, "checked   ", FormatChecked(report, *report.num_checked), "\n");
  }
  if (report.command.pace.rate > 0) {
    absl::StrAppendFormat(&text, "not sent  %d\n", report.num_not_sent);
  }
  if (report.command.client == ClientKind::kLibrary) {
    const MessageTally& messages = report.tally.messages();
    absl::StrAppendFormat(&text, "messages  %s calls each, %d sent again\n",
                          Show(CallsPerMessage(messages), 2), NumRetries(messages));
  }
  absl::StrAppendFormat(&text, "client    %s cores\n",
                        Show(Ratio(report.client_cpu_seconds, seconds), 2));
  if (report.server) {
    absl::StrAppendFormat(&text, "server    %s cores, %s CPU seconds per GB, %.0f MB resident\n",
                          Show(Ratio(report.server->cpu_seconds, seconds), 2),
                          Show(CpuSecondsPerGb(report, total), 3),
                          static_cast<double>(report.server->resident_bytes) / 1e6);
  }
  return text;
}

std::string FormatJson(const Report& report) {
  const SizeTally total = report.tally.Total();
  const double seconds = Seconds(report.elapsed);
  ordered_json json;
  json["configuration"] = Configuration(report.command);
  json["stopped"] = report.was_stopped;
  json["elapsed_seconds"] = seconds;
  json["requests"] = total.latency.count();
  json["requests_per_s"] = ToJson(Ratio(static_cast<double>(total.latency.count()), seconds));
  if (report.command.load.model->is_mlp()) json["tokens_per_s"] = ToJson(TokenRate(report, total));
  json["gb_per_s_in"] = ToJson(Ratio(Gb(total.bytes_in), seconds));
  json["gb_per_s_out"] = ToJson(Ratio(Gb(total.bytes_out), seconds));
  json["latency_ms"] = LatencyMs(total.latency);
  json["sizes"] = Sizes(report);
  json["errors"] = ordered_json::object();
  for (const auto& [code, count] : report.tally.num_errors()) {
    json["errors"][absl::StatusCodeToString(code)] = count;
  }
  json["error_example"] = std::string(report.tally.example().message());
  json["not_sent"] = report.num_not_sent;
  if (report.num_checked) json["checked"] = *report.num_checked;
  if (report.num_computed) json["computed"] = *report.num_computed;
  if (report.command.client == ClientKind::kLibrary) {
    json["calls_per_message"] = ToJson(CallsPerMessage(report.tally.messages()));
    json["retries"] = NumRetries(report.tally.messages());
  }
  json["client_cpu_seconds"] = report.client_cpu_seconds;
  if (report.server) json["server"] = Server(report, total);
  return json.dump(-1, ' ', false, ordered_json::error_handler_t::replace);
}

}  // namespace swiglu::bench
