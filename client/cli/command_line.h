// SPDX-License-Identifier: Apache-2.0
//
// The command line of `swiglu`. An unknown command or flag, or a wrong value, is an error.
#pragma once

#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "swiglu/tensor.h"

namespace swiglu::cli {

enum class Command { kForward, kBackward, kMlp, kStatus, kMetadata, kStatistics, kRegions, kPrint };

// The kinds of regions that `swiglu regions` prints or unregisters.
enum class RegionKinds { kBoth, kSystem, kCuda };

// What the user asks for. A field that the command does not use is empty.
struct CommandLine {
  Command command = Command::kPrint;
  std::string server;      // HOST:PORT, dns:///NAME:PORT or unix:/path
  absl::Duration timeout;  // 0: the library's default
  bool json = false;
  bool overwrite = false;
  std::string in;  // a file or kStandardStream, with the inputs that no other flag names
  std::string dw;  // FILE[:TENSOR], or :TENSOR of `in`
  std::string e;
  std::string g;
  std::string model;  // the name of an MLP; of kMetadata and kStatistics: of any model, or empty
  int layer = 0;      // of that MLP
  std::string op;     // its pass: forward or backward; empty: as `dy` says
  std::string x;      // FILE[:TENSOR], or :TENSOR of `in`
  std::string dy;
  std::optional<client::Shape> shape;  // of raw inputs
  std::optional<client::Dtype> dtype;  // of raw inputs
  std::string out;                     // a file or kStandardStream
  std::string out_dir;                 // a folder
  bool check = false;
  RegionKinds kind = RegionKinds::kBoth;
  std::string unregister;  // a region's name
  bool unregister_all = false;
  std::string text;  // kPrint: the help, for example
};

// Reads the arguments. INVALID_ARGUMENT, with a message of one line, if they are not valid.
absl::StatusOr<CommandLine> ParseCommandLine(int argc, const char* const* argv);

}  // namespace swiglu::cli
