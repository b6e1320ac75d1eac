// SPDX-License-Identifier: Apache-2.0
//
// The manual page of a program, made from the program's table of flags.
#pragma once

#include <string>

#include "absl/strings/string_view.h"
#include "server/base/command_line.h"

namespace swiglu::server {

// What the page tells beside the table.
struct Manual {
  int section = 1;                    // 1: commands, 8: what serves
  std::string summary;                // after the program's name: a few words
  std::string version;                // of the program
  std::vector<std::string> see_also;  // other pages, such as "swiglu(1)"
};

// The source of the page, in the language of man(7). Every machine has the same text.
std::string ManualPage(const Program& program, const Manual& manual);

}  // namespace swiglu::server
