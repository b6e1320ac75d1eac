// SPDX-License-Identifier: Apache-2.0
//
// Reads the clock before anyone else learns that the call has ended.
#include "client/bench/noting_connection.h"

namespace swiglu::bench {

void NotingConnection::StartInfer(const client::Inference& inference,
                                  const client::CallContext& context, Done done) {
  has_begun_ = true;
  inner_.StartInfer(inference, context,
                    [this, done = std::move(done)](client::CallResult result) mutable {
                      Note(result);
                      std::move(done)(std::move(result));
                      on_end_();
                    });
}

client::CallResult NotingConnection::Infer(const client::Inference& inference,
                                           const client::CallContext& context) {
  has_begun_ = true;
  client::CallResult result = inner_.Infer(inference, context);
  Note(result);
  return result;
}

void NotingConnection::Note(const client::CallResult& result) {
  end_ = Clock::now();
  statistics_ = result.statistics;
}

}  // namespace swiglu::bench
