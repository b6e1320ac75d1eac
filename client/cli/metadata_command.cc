// SPDX-License-Identifier: Apache-2.0
//
// One question, about the server or about a model.
#include <stdio.h>

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "client/cli/commands.h"
#include "client/cli/progress_bar.h"
#include "nlohmann/json.hpp"
#include "server/base/shown_text.h"
#include "swiglu/client.h"

namespace swiglu::cli {
namespace {

using client::ModelInfo;
using client::ServerInfo;
using client::TensorInfo;
using Json = nlohmann::ordered_json;

// A property may be long.
constexpr size_t kMaxPropertyBytes = 4096;

// A text from the server, without control characters.
std::string Property(absl::string_view text) {
  return server::ShownText({text.data(), text.size()}, kMaxPropertyBytes);
}

void PrintServer(const std::string& address, const ServerInfo& info) {
  absl::PrintF("server      %s\n", address);
  absl::PrintF("name        %s\n", Property(info.name));
  absl::PrintF("version     %s\n", Property(info.version));
  absl::PrintF("extensions  %s\n", Property(absl::StrJoin(info.extensions, ", ")));
}

void PrintTensors(const char* title, const std::vector<TensorInfo>& tensors) {
  for (const TensorInfo& tensor : tensors) {
    absl::PrintF("%-11s %s %s %s\n", title, Property(tensor.name), Property(tensor.datatype),
                 client::FormatShape(tensor.shape));
  }
}

void PrintModel(const std::string& address, const ModelInfo& info) {
  absl::PrintF("server      %s\n", address);
  absl::PrintF("model       %s\n", Property(info.name));
  absl::PrintF("platform    %s\n", Property(info.platform));
  absl::PrintF("versions    %s\n", Property(absl::StrJoin(info.versions, ", ")));
  PrintTensors("input", info.inputs);
  PrintTensors("output", info.outputs);
  for (const auto& [name, value] : info.properties) {
    absl::PrintF("property    %s = %s\n", Property(name), Property(value));
  }
}

Json ToJson(const std::vector<TensorInfo>& tensors) {
  Json json = Json::array();
  for (const TensorInfo& tensor : tensors) {
    json.push_back({{"name", tensor.name}, {"datatype", tensor.datatype}, {"shape", tensor.shape}});
  }
  return json;
}

void PrintMetadata(const Json& json) {
  puts(json.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace).c_str());
}

absl::Status AskServer(const CommandLine& command_line, const client::Client& client) {
  const absl::StatusOr<ServerInfo> info = WaitForServer([&] { return client.ServerMetadata(); });
  if (!info.ok()) return info.status();
  if (!command_line.json) {
    PrintServer(command_line.server, *info);
    return absl::OkStatus();
  }
  Json json;
  json["server"] = command_line.server;
  json["name"] = info->name;
  json["version"] = info->version;
  json["extensions"] = info->extensions;
  PrintMetadata(json);
  return absl::OkStatus();
}

absl::Status AskModel(const CommandLine& command_line, const client::Client& client) {
  const absl::StatusOr<ModelInfo> info =
      WaitForServer([&] { return client.ModelMetadata(command_line.model); });
  if (!info.ok()) return info.status();
  if (!command_line.json) {
    PrintModel(command_line.server, *info);
    return absl::OkStatus();
  }
  Json json;
  json["server"] = command_line.server;
  json["name"] = info->name;
  json["platform"] = info->platform;
  json["versions"] = info->versions;
  json["inputs"] = ToJson(info->inputs);
  json["outputs"] = ToJson(info->outputs);
  json["properties"] = info->properties;
  PrintMetadata(json);
  return absl::OkStatus();
}

}  // namespace

ProgramEnd RunMetadata(const CommandLine& command_line) {
  absl::StatusOr<client::Client> client =
      client::Client::Create(command_line.server, {.timeout = command_line.timeout});
  if (!client.ok()) return {ExitCode::kUsage, std::string(client.status().message())};
  const absl::Status status = command_line.model.empty() ? AskServer(command_line, *client)
                                                         : AskModel(command_line, *client);
  return status.ok() ? ProgramEnd() : CallFailed(status, *client);
}

}  // namespace swiglu::cli
