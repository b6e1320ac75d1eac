// SPDX-License-Identifier: Apache-2.0
//
// The echo's answers, read as the client library reads them, and the memory behind them.
#include "client/bench/echo_answer.h"

#include <vector>

#include "client/bench/request_data.h"
#include "client/infer_codec.h"
#include "gtest/gtest.h"

namespace swiglu::bench {
namespace {

// A request of `data` as it is on the wire.
grpc::ByteBuffer Message(const RequestData& data, client::Loan* loan) {
  const client::OutgoingMessage message = client::EncodeInferRequest(data.ToInference(0), {}, loan);
  return {message.slices.data(), message.slices.size()};
}

TEST(EchoAnswersTest, EveryModelsAnswerIsOneThatTheLibraryTakes) {
  for (const Model& model : AllModels()) {
    const RequestData data(&model, NumElements(model, 4096));
    const EchoAnswers answers(model, {1024, 4096, 16384});
    client::Loan loan;
    grpc::ByteBuffer request = Message(data, &loan);
    grpc::ByteBuffer answer;
    ASSERT_TRUE(answers.Answer(&request, &answer)) << model.name();
    EXPECT_TRUE(loan.IsRepaid()) << model.name();

    std::vector<std::byte> bytes(static_cast<size_t>(data.output_bytes()));
    client::Inference inference = data.ToInference(0);
    const size_t size = bytes.size() / model.outputs.size();
    for (size_t k = 0; k < model.outputs.size(); ++k) {
      inference.outputs.push_back(
          {model.outputs[k], absl::MakeSpan(bytes).subspan(k * size, size)});
    }
    const auto decoded = client::DecodeInferResponse(answer, inference);
    EXPECT_TRUE(decoded.ok()) << model.name() << decoded.status();
  }
}

TEST(EchoAnswersTest, HasNoneForAnotherSize) {
  const Model& model = *FindModel("swiglu_forward_fp16");
  const RequestData data(&model, NumElements(model, 4096));
  client::Loan loan;
  grpc::ByteBuffer request = Message(data, &loan);
  grpc::ByteBuffer answer;
  EXPECT_FALSE(EchoAnswers(model, {8192}).Answer(&request, &answer));
  EXPECT_TRUE(request.Valid());
}

TEST(BufferPoolTest, UsesABufferAgainWhenItsLastSliceIsGone) {
  const std::shared_ptr<BufferPool> pool = BufferPool::Create(4096);
  grpc::Slice whole = pool->Take();
  const uint8_t* const bytes = whole.begin();
  EXPECT_EQ(whole.size(), 4096u);
  grpc::Slice part = whole.sub(1000, 4096);
  whole = grpc::Slice();
  EXPECT_NE(pool->Take().begin(), bytes);
  part = grpc::Slice();
  EXPECT_EQ(pool->Take().begin(), bytes);
}

TEST(BufferPoolTest, LivesAsLongAsItsSlices) {
  std::shared_ptr<BufferPool> pool = BufferPool::Create(4096);
  const std::weak_ptr<BufferPool> watched = pool;
  grpc::Slice slice = pool->Take();
  pool.reset();
  EXPECT_FALSE(watched.expired());
  slice = grpc::Slice();
  EXPECT_TRUE(watched.expired());
}

}  // namespace
}  // namespace swiglu::bench
