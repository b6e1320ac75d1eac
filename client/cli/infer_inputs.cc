// SPDX-License-Identifier: Apache-2.0
//
// Plans where each input is, then opens each file once.
#include "client/cli/infer_inputs.h"

#include <algorithm>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/string_view.h"
#include "client/cli/memory_need.h"
#include "client/cli/standard_input.h"
#include "client/files/tensor_format.h"

namespace swiglu::cli {
namespace {

using client::TensorView;
using files::Format;
using files::RawTensors;
using files::TensorFile;
using files::TensorName;

// An input, and the value of its flag.
struct InputFlag {
  std::string name;
  std::string value;  // empty: the input is in --in, under its name
};

// The inputs in the order of the call's arguments.
std::vector<InputFlag> InputFlags(const CommandLine& line) {
  switch (line.command) {
    case Command::kForward:
      return {{"e", line.e}, {"g", line.g}};
    case Command::kBackward:
      return {{"dw", line.dw}, {"e", line.e}, {"g", line.g}};
    default:
      if (IsBackward(line)) return {{"x", line.x}, {"dy", line.dy}};
      return {{"x", line.x}};
  }
}

// Whether an input is a tensor of --in.
bool IsIn(const InputFlag& flag) { return flag.value.empty() || flag.value.front() == ':'; }

// Where an input is.
struct Place {
  TensorName name;
  bool is_unnamed = false;  // in --in, by its own name or, in a raw file, by its number
  size_t number = 0;        // among the unnamed ones
};

std::vector<Place> PlacesOf(const CommandLine& line) {
  std::vector<Place> places;
  size_t num_unnamed = 0;
  for (const auto& [name, value] : InputFlags(line)) {
    if (value.empty()) {
      places.push_back({{line.in, name}, true, num_unnamed++});
    } else if (value.front() == ':') {
      places.push_back({{line.in, value.substr(1)}});
    } else {
      places.push_back({files::SplitTensorName(value)});
    }
  }
  return places;
}

bool IsStandardInput(absl::string_view path) { return path == files::kStandardStream; }

// Whether the name of a file says that it is raw.
bool IsNamedRaw(absl::string_view path) {
  const absl::StatusOr<Format> format = files::FormatOf(path);
  return format.ok() && *format == Format::kRaw;
}

absl::Status WrongFlags(absl::string_view what) {
  return absl::InvalidArgumentError(absl::StrCat(what, "; see swiglu --help"));
}

// --in is there if it is needed, and is needed if it is there.
absl::Status CheckIn(const CommandLine& line) {
  const std::vector<InputFlag> flags = InputFlags(line);
  for (const auto& [name, value] : flags) {
    if (!line.in.empty()) continue;
    if (value.empty()) return WrongFlags(absl::StrCat("--", name, " is missing"));
    if (value.front() == ':') {
      return WrongFlags(
          absl::StrCat("--", name, "=", value, " is a tensor of --in, which is missing"));
    }
  }
  if (line.in.empty() || std::any_of(flags.begin(), flags.end(), IsIn)) return absl::OkStatus();
  return WrongFlags("--in has no input to give: other flags name all of them");
}

// Only one flag may name standard input.
absl::Status CheckStandardInput(const CommandLine& line) {
  std::vector<std::string> names;
  if (IsStandardInput(line.in)) names.emplace_back("--in");
  for (const auto& [name, value] : InputFlags(line)) {
    if (IsStandardInput(files::SplitTensorName(value).path)) names.push_back("--" + name);
  }
  if (names.size() < 2) return absl::OkStatus();
  return WrongFlags(
      absl::StrCat(absl::StrJoin(names, " and "),
                   " name standard input; --in=- alone takes several tensors from it"));
}

// --shape and --dtype are there if and only if an input needs them.
absl::Status CheckRaw(const CommandLine& line) {
  const bool has_both = line.shape.has_value() && line.dtype.has_value();
  bool may_be_raw = false;
  for (const Place& place : PlacesOf(line)) {
    const std::string& path = place.name.path;
    const bool is_raw = IsNamedRaw(path) || (IsStandardInput(path) && line.shape.has_value());
    if (is_raw && !has_both) {
      return WrongFlags(absl::StrCat(path, " is raw, so it needs --shape and --dtype"));
    }
    if (is_raw && !place.is_unnamed && !place.name.tensor.empty()) {
      return WrongFlags(
          absl::StrCat(path, " is raw, so it has no tensor '", place.name.tensor, "'"));
    }
    may_be_raw = may_be_raw || is_raw || IsStandardInput(path);
  }
  if (!line.shape.has_value() && !line.dtype.has_value()) return absl::OkStatus();
  if (!has_both) return WrongFlags("--shape and --dtype go together");
  if (!may_be_raw) return WrongFlags("--shape and --dtype are for raw inputs, and there is none");
  const absl::StatusOr<int64_t> bytes =
      files::RawBytes({*line.dtype, *line.shape, InputFlags(line).size()});
  if (!bytes.ok()) return WrongFlags(absl::StrCat("--", bytes.status().message()));
  return absl::OkStatus();
}

// The tensors of the raw file or stream that has the input at `place`.
RawTensors RawTensorsAt(const CommandLine& line, const Place& place) {
  size_t num_tensors = 1;
  if (place.is_unnamed) {
    const std::vector<Place> places = PlacesOf(line);
    num_tensors = static_cast<size_t>(std::count_if(
        places.begin(), places.end(), [](const Place& other) { return other.is_unnamed; }));
  }
  return {*line.dtype, *line.shape, num_tensors};
}

// The most bytes that standard input may have.
uint64_t MaxStandardInputBytesOf(const CommandLine& line) {
  const std::vector<Place> places = PlacesOf(line);
  const auto num_inputs = std::count_if(places.begin(), places.end(), [](const Place& place) {
    return IsStandardInput(place.name.path);
  });
  return MaxStandardInputBytes(static_cast<uint64_t>(num_inputs),
                               line.command == Command::kBackward ? 3 : 1);
}

// Standard input is raw if a shape is given.
absl::StatusOr<TensorFile> OpenAt(const CommandLine& line, const Place& place) {
  if (!IsStandardInput(place.name.path)) return TensorFile::Open(place.name.path);
  const uint64_t max_bytes = MaxStandardInputBytesOf(line);
  if (line.shape.has_value()) return ReadStandardInput(RawTensorsAt(line, place), max_bytes);
  return ReadStandardInput(std::nullopt, max_bytes);
}

absl::StatusOr<TensorView> FindAt(const CommandLine& line, const Place& place,
                                  const TensorFile& file) {
  if (file.format() != Format::kRaw) return file.Find(place.name.tensor);
  return file.FindRaw(RawTensorsAt(line, place), place.number);
}

}  // namespace

bool IsBackward(const CommandLine& command_line) {
  return command_line.command == Command::kBackward || command_line.op == "backward" ||
         !command_line.dy.empty();
}

absl::Status CheckInputFlags(const CommandLine& command_line) {
  if (command_line.op == "forward" && !command_line.dy.empty()) {
    return WrongFlags("--op=forward takes no --dy");
  }
  absl::Status status = CheckIn(command_line);
  status.Update(CheckStandardInput(command_line));
  status.Update(CheckRaw(command_line));
  return status;
}

absl::StatusOr<Format> Inputs::CommonFormat() const {
  for (const TensorFile& file : files) {
    if (file.format() == files.front().format()) continue;
    return absl::InvalidArgumentError(absl::StrCat(
        "the inputs are of several kinds, ", files::Extension(files.front().format()), " and ",
        files::Extension(file.format()),
        "; results in a folder or on stdout take the kind of all; --out=FILE names another"));
  }
  return files.front().format();
}

uint64_t Inputs::StandardInputBytes() const {
  uint64_t num_bytes = 0;
  for (const TensorFile& file : files) num_bytes += file.stream_size_bytes();
  return num_bytes;
}

absl::StatusOr<Inputs> OpenInputs(const CommandLine& command_line) {
  Inputs inputs;
  std::vector<std::string> paths;  // of the files
  for (const Place& place : PlacesOf(command_line)) {
    const auto found = std::find(paths.begin(), paths.end(), place.name.path);
    const auto number = static_cast<size_t>(found - paths.begin());
    if (found == paths.end()) {
      absl::StatusOr<TensorFile> file = OpenAt(command_line, place);
      if (!file.ok()) return file.status();
      inputs.files.push_back(*std::move(file));
      paths.push_back(place.name.path);
    }
    absl::StatusOr<TensorView> tensor = FindAt(command_line, place, inputs.files[number]);
    if (!tensor.ok()) return tensor.status();
    inputs.tensors.push_back(*std::move(tensor));
  }
  return inputs;
}

}  // namespace swiglu::cli
