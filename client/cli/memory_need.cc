// SPDX-License-Identifier: Apache-2.0
//
// Compares with the limit, and maps memory for a moment to see whether there is room for it.
#include "client/cli/memory_need.h"

#include <sys/mman.h>

#include <algorithm>
#include <string>
#include <thread>

#include "absl/strings/str_cat.h"
#include "server/base/memory_limit.h"

namespace swiglu::cli {
namespace {

// What the program itself takes.
constexpr uint64_t kProgramBytes = uint64_t{32} << 20;

// The addresses that a thread takes: its stack, and what malloc reserves for it.
constexpr uint64_t kThreadBytes = uint64_t{72} << 20;

uint64_t MemoryBytes() { return static_cast<uint64_t>(server::MemoryLimitBytes()); }

// The addresses that the threads of a call take. A call with few bytes uses few of them.
uint64_t ThreadBytes(uint64_t result_bytes) {
  const uint64_t num_threads = 4 + 2 * std::min(std::thread::hardware_concurrency(), 8u);
  return std::min(num_threads * kThreadBytes, 8 * result_bytes);
}

bool HasRoom(uint64_t num_bytes) {
  void* const room = mmap(nullptr, num_bytes, PROT_READ | PROT_WRITE,
                          MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (room == MAP_FAILED) return false;
  munmap(room, num_bytes);
  return true;
}

}  // namespace

uint64_t MaxStandardInputBytes(uint64_t num_inputs, uint64_t num_results) {
  const uint64_t memory_bytes = MemoryBytes();
  const uint64_t most_bytes = memory_bytes - std::min(memory_bytes, kProgramBytes);
  return most_bytes / (num_inputs + 2 * num_results) * num_inputs;
}

absl::Status CheckMemory(uint64_t input_bytes, uint64_t result_bytes) {
  const uint64_t needed_bytes = kProgramBytes + input_bytes + 2 * result_bytes;
  if (needed_bytes <= MemoryBytes()) return absl::OkStatus();
  const std::string input = input_bytes > 0 ? absl::StrCat(input_bytes, " of stdin, ") : "";
  return absl::ResourceExhaustedError(
      absl::StrCat("the call needs ", needed_bytes, " bytes of memory: ", input, "twice the ",
                   result_bytes, " of the results, and ", kProgramBytes, "; this process may use ",
                   MemoryBytes(), "; cut the tensors into several calls"));
}

absl::Status CheckAddressSpace(uint64_t result_bytes) {
  const uint64_t needed_bytes = result_bytes + ThreadBytes(result_bytes);
  if (needed_bytes == 0 || HasRoom(needed_bytes)) return absl::OkStatus();
  return absl::ResourceExhaustedError(absl::StrCat(
      "no room for ", needed_bytes,
      " bytes more, for messages and threads of the call; this process may use ", MemoryBytes(),
      " bytes in all; cut the tensors into several calls, or raise "
      "ulimit -v and -d"));
}

}  // namespace swiglu::cli
