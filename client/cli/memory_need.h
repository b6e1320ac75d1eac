// SPDX-License-Identifier: Apache-2.0
//
// How much memory a call of `swiglu forward`, `backward` or `mlp` needs, beside what this process
// may use. Results are in memory twice: as tensors, and in the messages that bring them.
#pragma once

#include <cstdint>

#include "absl/status/status.h"

namespace swiglu::cli {

// The most bytes that standard input may have, so that they and the results fit into memory.
// `num_inputs` (1 or more) inputs come through it; the call has `num_results` results, and each
// input and result has the same size.
uint64_t MaxStandardInputBytes(uint64_t num_inputs, uint64_t num_results);

// OK if the memory that this process may use suffices for `input_bytes` that came through standard
// input and for results of `result_bytes` in all. RESOURCE_EXHAUSTED, with all numbers, if not.
absl::Status CheckMemory(uint64_t input_bytes, uint64_t result_bytes);

// OK if the address space has room for the messages with results of `result_bytes` in all, and for
// the threads of the call. RESOURCE_EXHAUSTED if not, as with a low `ulimit -v`. To be called when
// the inputs are open and the results are allocated.
absl::Status CheckAddressSpace(uint64_t result_bytes);

}  // namespace swiglu::cli
