// SPDX-License-Identifier: Apache-2.0
//
// The model of a load on an MLP. Only the server knows its dtype and its hidden size.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "client/bench/byte_mix.h"
#include "client/bench/model.h"
#include "swiglu/client.h"

namespace swiglu::bench {

// Which layers of which MLP a load calls.
struct MlpChoice {
  std::string name;
  int first_layer = 0;
  int num_layers = 1;  // 1 or more
  bool is_backward = false;
};

// Reads `NAME:LAYER` into `choice`. False if the text has another form.
bool ReadMlpLayer(absl::string_view text, MlpChoice* choice);

// Asks the server for every layer of `choice`. Blocks. Returns the server's own errors, such as
// NOT_FOUND. INTERNAL if the metadata of a layer are not those of an MLP. INVALID_ARGUMENT if the
// layers differ in dtype or hidden size.
absl::StatusOr<Model> AskForMlp(client::Client& client, const MlpChoice& choice);

// The sizes, in bytes, of requests with so many tokens. INVALID_ARGUMENT if a request is too large
// for 64 bits.
absl::StatusOr<std::vector<WeightedSize>> TokensToBytes(const Model& mlp,
                                                        const std::vector<WeightedSize>& tokens);

// Tokens of a request of that size. REQUIRES: the model is that of an MLP.
int64_t NumTokens(const Model& mlp, int64_t request_bytes);

}  // namespace swiglu::bench
