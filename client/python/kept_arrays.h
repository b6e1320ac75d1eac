// SPDX-License-Identifier: Apache-2.0
//
// Arrays on GPUs that a server may still write to, although their calls have failed here.
#pragma once

#include "client/python/array.h"

namespace swiglu::python {

// Keeps an array for a minute. A batch that a server has begun runs to its end, even if nobody
// waits for it any more. Until then nobody else may get the memory of its outputs. Needs the GIL.
void KeepForAMinute(Array array);

// Drops the arrays that were kept long enough. Needs the GIL.
void DropKept();

}  // namespace swiglu::python
