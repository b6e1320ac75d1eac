// SPDX-License-Identifier: Apache-2.0
//
// Many calls that are started at once. The library joins small calls, too, but costs more for each,
// because it does not know that others follow.
#pragma once

#include <memory>
#include <vector>

#include "absl/types/span.h"
#include "client/python/client_state.h"
#include "client/python/completion.h"
#include "client/python/model_call.h"
#include "swiglu/options.h"

namespace swiglu::python {

// Starts calls of one operation, which end as those of `completion` and have the time of `options`
// together. Small ones that follow each other and have the same dtype go to the server as one call
// with the elements of all. At most 16 of these joined calls are under way; threads of the library
// start the others when one has ended. `client` and `calls` must live until all have ended. Does
// not need the GIL.
void StartAll(ClientState& client, const client::CallOptions& options, absl::Span<ModelCall> calls,
              const std::shared_ptr<Completion>& completion);

}  // namespace swiglu::python
