// SPDX-License-Identifier: Apache-2.0
//
// How much memory this process may use: the machine's, or less if a container or a limit of the
// process says so. Part of the program.
#pragma once

#include <cstdint>
#include <string>

namespace swiglu::server {

// In bytes: the machine's memory, or the smallest of these limits if it is less: those of the
// control groups (version 1 or 2) of this process, and those on its address space and data (ulimit
// -v, -d). `root` stands in front of /proc and /sys; tests give a folder of their own.
int64_t MemoryLimitBytes(const std::string& root = "");

}  // namespace swiglu::server
