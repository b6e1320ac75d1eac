// SPDX-License-Identifier: Apache-2.0
//
// One question for each kind of region, one page.
#include <stdio.h>

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "client/cli/commands.h"
#include "client/cli/progress_bar.h"
#include "nlohmann/json.hpp"
#include "server/base/shown_text.h"
#include "swiglu/client.h"

namespace swiglu::cli {
namespace {

using client::RegionInfo;
using client::RegionKind;
using Json = nlohmann::ordered_json;

// A name may be long.
constexpr size_t kMaxShownBytes = 1024;

const char* Name(RegionKind kind) { return kind == RegionKind::kSystem ? "system" : "cuda"; }

std::vector<RegionKind> Kinds(RegionKinds kinds) {
  switch (kinds) {
    case RegionKinds::kSystem:
      return {RegionKind::kSystem};
    case RegionKinds::kCuda:
      return {RegionKind::kCuda};
    case RegionKinds::kBoth:
      break;
  }
  return {RegionKind::kSystem, RegionKind::kCuda};
}

// Does `ask` for each kind. If the server has only some of the kinds on, the others do not count.
absl::Status OnEach(RegionKinds kinds, const std::function<absl::Status(RegionKind)>& ask) {
  absl::Status off;
  bool is_one_on = false;
  for (const RegionKind kind : Kinds(kinds)) {
    absl::Status status = ask(kind);
    if (absl::IsUnimplemented(status)) {
      off.Update(status);
    } else if (!status.ok()) {
      return status;
    } else {
      is_one_on = true;
    }
  }
  return is_one_on ? absl::OkStatus() : off;
}

absl::StatusOr<std::vector<RegionInfo>> List(client::Client& client, RegionKinds kinds) {
  std::vector<RegionInfo> regions;
  absl::Status status = OnEach(kinds, [&](RegionKind kind) {
    const absl::StatusOr<std::vector<RegionInfo>> of_kind = client.ListRegions(kind);
    if (of_kind.ok()) regions.insert(regions.end(), of_kind->begin(), of_kind->end());
    return of_kind.status();
  });
  if (!status.ok()) return status;
  return regions;
}

// Unregisters the region of that name. The server itself says OK to a name that it does not know.
absl::Status Unregister(client::Client& client, RegionKinds kinds, const std::string& name) {
  const absl::StatusOr<std::vector<RegionInfo>> regions = List(client, kinds);
  if (!regions.ok()) return regions.status();
  for (const RegionInfo& region : *regions) {
    if (region.name == name) return client.UnregisterRegion(region.kind, name);
  }
  return absl::NotFoundError(absl::StrCat("unknown region '", name, "'"));
}

void PrintText(const std::vector<RegionInfo>& regions) {
  absl::PrintF("%-6s %15s %6s  %s\n", "kind", "bytes", "device", "name");
  for (const RegionInfo& region : regions) {
    absl::PrintF("%-6s %15d %6s  %s\n", Name(region.kind), region.size_bytes,
                 region.device < 0 ? "-" : absl::StrCat(region.device),
                 server::ShownText(region.name, kMaxShownBytes));
  }
}

void PrintJson(const std::string& address, const std::vector<RegionInfo>& regions) {
  Json json;
  json["server"] = address;
  json["regions"] = Json::array();
  for (const RegionInfo& region : regions) {
    json["regions"].push_back(
        {{"name", region.name},
         {"kind", Name(region.kind)},
         {"bytes", region.size_bytes},
         {"device", region.device < 0 ? Json(nullptr) : Json(region.device)}});
  }
  puts(json.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace).c_str());
}

absl::Status Do(const CommandLine& command_line, client::Client& client) {
  if (command_line.unregister_all) {
    return WaitForServer([&] {
      return OnEach(command_line.kind,
                    [&](RegionKind kind) { return client.UnregisterAllRegions(kind); });
    });
  }
  if (!command_line.unregister.empty()) {
    return WaitForServer(
        [&] { return Unregister(client, command_line.kind, command_line.unregister); });
  }
  const absl::StatusOr<std::vector<RegionInfo>> regions =
      WaitForServer([&] { return List(client, command_line.kind); });
  if (!regions.ok()) return regions.status();
  command_line.json ? PrintJson(command_line.server, *regions) : PrintText(*regions);
  return absl::OkStatus();
}

}  // namespace

ProgramEnd RunRegions(const CommandLine& command_line) {
  absl::StatusOr<client::Client> client =
      client::Client::Create(command_line.server, {.timeout = command_line.timeout});
  if (!client.ok()) return {ExitCode::kUsage, std::string(client.status().message())};
  const absl::Status status = Do(command_line, *client);
  return status.ok() ? ProgramEnd() : CallFailed(status, *client);
}

}  // namespace swiglu::cli
