// SPDX-License-Identifier: Apache-2.0
//
// The ways to call an operation, as a table. A test that runs each row shows that a fault of a
// server has the same outcome for all of them. A new way to call is a new row in call_forms.cc.
#pragma once

#include <cstdint>
#include <iosfwd>
#include <string>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "proto/inference.pb.h"
#include "swiglu/client.h"

namespace swiglu::client {

struct Form {
  const char* name;          // for the name of a test
  const char* model;         // that it calls
  const char* first_output;  // of that model
  // Makes one call with tensors of its own, FP16 of the shape [num_rows,64], and expects what
  // FlipInfer answers. Returns the error of the call.
  absl::Status (*call)(Client& client, int64_t num_rows, const CallOptions& options);
};

// All forms.
absl::Span<const Form> Forms();

// What EchoInfer answers, with each bit of the tensors inverted. So no output is equal to what its
// memory had before, and an operation in place is wrong if it was sent again with its own results.
inference::ModelInferResponse FlipInfer(const inference::ModelInferRequest& request);

// GoogleTest prints a form by its name.
void PrintTo(const Form& form, std::ostream* out);

}  // namespace swiglu::client
