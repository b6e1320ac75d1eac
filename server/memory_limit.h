// SPDX-License-Identifier: Apache-2.0
//
// How much memory this process may use: the machine's, or less if a container or a limit of the
// process says so. Part of the program.
#pragma once

#include <cstdint>
#include <string>

namespace swiglu::server {

// Bytes: the machine's memory, or the smallest limit of the control groups (version 1 or 2) that
// this process is in and of its own address space and data (ulimit -v, -d). `root` stands in front
// of /proc and /sys; tests give a folder of their own.
int64_t MemoryLimitBytes(const std::string& root = "");

}  // namespace swiglu::server
