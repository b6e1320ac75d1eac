// SPDX-License-Identifier: Apache-2.0
//
// How much memory this process may use: all of the machine's memory, or less if a container or a
// limit of the process says so.
#pragma once

#include <cstdint>
#include <string>

namespace swiglu::server {

// Returns, in bytes, the smallest of: the machine's memory, the limits of this process's control
// groups (version 1 or 2), and its limits on address space and data (ulimit -v, -d). `root` is put
// in front of /proc and /sys; tests pass a folder of their own.
int64_t MemoryLimitBytes(const std::string& root = "");

}  // namespace swiglu::server
