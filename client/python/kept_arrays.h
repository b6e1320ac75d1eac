// SPDX-License-Identifier: Apache-2.0
//
// Arrays on GPUs that a server may still write to, although their calls have failed here.
#pragma once

#include <vector>

#include "client/python/array.h"

namespace swiglu::python {

// Keeps the outputs of a call for a minute. A batch that a server has begun runs to its end, even
// if nobody waits for it any more. Until then nobody else may get the memory of its outputs. If
// more than 1 GiB is kept, the oldest outputs are dropped, but never those of the last call. Needs
// the GIL.
void KeepForAMinute(std::vector<Array> outputs);

// Drops the outputs that were kept long enough. Needs the GIL.
void DropKept();

}  // namespace swiglu::python
