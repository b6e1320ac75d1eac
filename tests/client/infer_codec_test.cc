// SPDX-License-Identifier: Apache-2.0
//
// The hand-made messages against the generated parser, and answers of servers that lie.
#include "client/infer_codec.h"

#include <limits>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "proto/inference.pb.h"
#include "swiglu/client.h"
#include "tests/client/bytes.h"
#include "tests/client/fake_server.h"

namespace swiglu::client {
namespace {

// `text` as a message in slices of `slice_bytes`.
grpc::ByteBuffer Buffer(const std::string& text, size_t slice_bytes = 1 << 20) {
  std::vector<grpc::Slice> slices;
  for (size_t k = 0; k < text.size(); k += slice_bytes) {
    slices.emplace_back(text.substr(k, slice_bytes));
  }
  return grpc::ByteBuffer(slices.data(), slices.size());
}

class InferCodecTest : public ::testing::Test {
 protected:
  // Errors are statuses; protobuf need not print them too.
  static void SetUpTestSuite() { TuneProcess(); }

  InferCodecTest() {
    inference_.model = "swiglu_backward_fp16";
    inference_.dtype = Dtype::kFp16;
    inference_.shape = {2, 3};
    inference_.inputs = {{"DW", AsBytes(dw_)}, {"e", AsBytes(e_)}, {"g", AsBytes(g_)}};
    inference_.outputs = {
        {"h", AsWritableBytes(h_)}, {"df", AsWritableBytes(df_)}, {"de", AsWritableBytes(de_)}};
  }

  // The request as the generated parser reads it.
  inference::ModelInferRequest Request() {
    Loan loan;
    inference::ModelInferRequest request;
    {
      const OutgoingMessage message = EncodeInferRequest(inference_, {}, &loan);
      std::string text;
      for (const grpc::Slice& slice : message.slices) {
        text.append(reinterpret_cast<const char*>(slice.begin()), slice.size());
      }
      EXPECT_EQ(text.size(), static_cast<size_t>(message.size_bytes));
      EXPECT_TRUE(request.ParseFromString(text));
    }
    EXPECT_TRUE(loan.IsRepaid());
    return request;
  }

  inference::ModelInferResponse Good() { return EchoInfer(Request()); }

  std::string Refusal(const std::string& response) {
    const absl::Status status = DecodeInferResponse(Buffer(response, 5), inference_).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInternal);
    return std::string(status.message());
  }
  std::string Refusal(const inference::ModelInferResponse& response) {
    return Refusal(response.SerializeAsString());
  }

  std::string dw_ = Pattern(12, 1), e_ = Pattern(12, 2), g_ = Pattern(12, 3);
  std::string h_ = std::string(12, '?'), df_ = h_, de_ = h_;
  Inference inference_;
};

TEST_F(InferCodecTest, RequestIsWhatTheGeneratedParserReads) {
  const inference::ModelInferRequest request = Request();
  EXPECT_EQ(request.model_name(), "swiglu_backward_fp16");
  ASSERT_EQ(request.inputs_size(), 3);
  EXPECT_EQ(request.inputs(0).name(), "DW");
  EXPECT_EQ(request.inputs(2).datatype(), "FP16");
  EXPECT_EQ(Shape(request.inputs(1).shape().begin(), request.inputs(1).shape().end()),
            (Shape{2, 3}));
  ASSERT_EQ(request.raw_input_contents_size(), 3);
  EXPECT_EQ(request.raw_input_contents(0), dw_);
  EXPECT_EQ(request.raw_input_contents(1), e_);
  EXPECT_EQ(request.raw_input_contents(2), g_);
}

TEST_F(InferCodecTest, RequestPointsAtTheCallersMemory) {
  Loan loan;
  const OutgoingMessage message = EncodeInferRequest(inference_, {}, &loan);
  EXPECT_FALSE(loan.IsRepaid());
  ASSERT_EQ(message.slices.size(), 6u);
  EXPECT_EQ(static_cast<const void*>(message.slices[1].begin()), dw_.data());
  EXPECT_EQ(static_cast<const void*>(message.slices[3].begin()), e_.data());
  EXPECT_EQ(static_cast<const void*>(message.slices[5].begin()), g_.data());
}

TEST_F(InferCodecTest, RequestWithoutElementsHasEmptyEntries) {
  for (auto& input : inference_.inputs) input.bytes = {};
  inference_.shape = {0};
  EXPECT_EQ(Request().raw_input_contents_size(), 3);
}

TEST_F(InferCodecTest, LargestMessageIsABoundForBoth) {
  const auto request_bytes = static_cast<int64_t>(Request().ByteSizeLong());
  const auto response_bytes = static_cast<int64_t>(Good().ByteSizeLong());
  EXPECT_GE(LargestMessageBytes(inference_), request_bytes);
  EXPECT_GE(LargestMessageBytes(inference_), response_bytes);
  EXPECT_LE(LargestMessageBytes(inference_), request_bytes + 100);
}

TEST_F(InferCodecTest, AnAnswerOfAStreamIsDecodedAsAnyOther) {
  inference::ModelStreamInferResponse streamed;
  *streamed.mutable_infer_response() = Good();
  for (const size_t slice_bytes : {1, 2, 5, 1000}) {
    h_.assign(h_.size(), '?');
    EXPECT_EQ(
        DecodeStreamResponse(Buffer(streamed.SerializeAsString(), slice_bytes), inference_, "1")
            .status(),
        absl::OkStatus());
    EXPECT_EQ(h_, dw_);
    EXPECT_EQ(de_, g_);
  }
  streamed.mutable_infer_response()->mutable_outputs(0)->set_name("k");
  EXPECT_EQ(DecodeStreamResponse(Buffer(streamed.SerializeAsString()), inference_, "1").status(),
            DecodeInferResponse(Buffer(streamed.infer_response().SerializeAsString()), inference_)
                .status());
}

// Not every server repeats the id.
TEST_F(InferCodecTest, AnAnswerOfAStreamHasTheIdOfItsMessageOrNone) {
  inference::ModelStreamInferResponse streamed;
  *streamed.mutable_infer_response() = Good();
  for (const char* id : {"", "12"}) {
    streamed.mutable_infer_response()->set_id(id);
    EXPECT_EQ(DecodeStreamResponse(Buffer(streamed.SerializeAsString()), inference_, "12").status(),
              absl::OkStatus());
  }
  streamed.mutable_infer_response()->set_id("1");
  EXPECT_EQ(DecodeStreamResponse(Buffer(streamed.SerializeAsString()), inference_, "12").status(),
            absl::InternalError("bad response of 'swiglu_backward_fp16': it answers the message "
                                "'1', not '12'"));
}

TEST_F(InferCodecTest, AnythingElseOnAStreamIsUnavailableAndWritesNothing) {
  inference::ModelStreamInferResponse failed, both, good;
  failed.set_error_message("no");
  *good.mutable_infer_response() = Good();
  both = good;
  both.set_error_message("no");
  const std::string whole = good.SerializeAsString();
  for (const std::string& text :
       {failed.SerializeAsString(), both.SerializeAsString(), std::string(),
        whole + failed.SerializeAsString(), whole.substr(0, whole.size() - 1), whole.substr(1)}) {
    EXPECT_EQ(DecodeStreamResponse(Buffer(text, 5), inference_, "1").status().code(),
              absl::StatusCode::kUnavailable);
    EXPECT_EQ(h_, std::string(12, '?'));
  }
}

TEST_F(InferCodecTest, PartIsARankOneInferenceOfItsElements) {
  const Inference part = inference_.Part(2, 3);
  EXPECT_EQ(part.shape, Shape{3});
  EXPECT_EQ(AsText(part.inputs[1].bytes), e_.substr(4, 6));
  EXPECT_EQ(part.outputs[2].bytes.data(), AsWritableBytes(de_).data() + 4);
  EXPECT_EQ(part.outputs[2].bytes.size(), 6u);
  EXPECT_LE(LargestMessageBytes(part) - 3 * part.tensor_bytes(), MaxPartOverhead(part));
}

TEST_F(InferCodecTest, BoundsHoldForRegions) {
  const RegionPart place{std::string(300, 'r'), std::numeric_limits<int64_t>::max(),
                         int64_t{1} << 62, 12};
  for (auto& input : inference_.inputs) input = {input.name, {}, place};
  inference_.outputs[1] = {"df", {}, place};
  inference_.outputs[2] = {"de", {}, place};
  EXPECT_EQ(NumCarried(inference_), 1);
  const auto request_bytes = static_cast<int64_t>(Request().ByteSizeLong());
  EXPECT_GE(LargestMessageBytes(inference_), request_bytes);
  EXPECT_LE(LargestMessageBytes(inference_), request_bytes + 100);
  const Inference part = inference_.Part(2, 3);
  EXPECT_EQ(part.inputs[0].part->offset, place.offset + 4);
  EXPECT_EQ(part.outputs[2].part->size_bytes, 6);
  EXPECT_EQ(part.tensor_bytes(), 6);
  EXPECT_LE(LargestMessageBytes(part) - 6, MaxPartOverhead(part));
}

TEST_F(InferCodecTest, PartOfAnMlpIsItsRows) {
  inference_.model = "mlp_m_0_backward";
  inference_.shape = {2, 1, 3};
  inference_.row_elements = 3;
  inference_.inputs = {{"x", AsBytes(dw_)}, {"dy", AsBytes(e_)}};
  inference_.outputs = {{"dx", AsWritableBytes(h_)}};
  const Inference part = inference_.Part(3, 3);
  EXPECT_EQ(part.shape, (Shape{1, 3}));
  EXPECT_EQ(part.row_elements, 3);
  EXPECT_EQ(AsText(part.inputs[1].bytes), e_.substr(6));
  EXPECT_EQ(part.outputs[0].bytes.data(), AsWritableBytes(h_).data() + 6);
}

TEST_F(InferCodecTest, BoundsHoldForAnMlpOfALongName) {
  const std::string model = "mlp_" + std::string(1000, 'm');
  inference_.model = model;
  inference_.row_elements = 3;
  inference_.inputs = {{"x", AsBytes(dw_)}};
  inference_.outputs = {{"y", AsWritableBytes(h_)}};
  const inference::ModelInferRequest request = Request();
  const inference::ModelInferResponse response = EchoInfer(request);
  EXPECT_GE(LargestMessageBytes(inference_), static_cast<int64_t>(request.ByteSizeLong()));
  EXPECT_GE(LargestMessageBytes(inference_), static_cast<int64_t>(response.ByteSizeLong()));
  const Inference part = inference_.Part(3, 3);
  EXPECT_LE(LargestMessageBytes(part) - 6, MaxPartOverhead(part));
}

TEST_F(InferCodecTest, ReadsAResponseHoweverItIsSliced) {
  const std::string response = Good().SerializeAsString();
  for (size_t slice_bytes = 1; slice_bytes <= response.size(); ++slice_bytes) {
    h_.assign(12, '?');
    ASSERT_TRUE(DecodeInferResponse(Buffer(response, slice_bytes), inference_).ok());
    ASSERT_EQ(h_, dw_);
    ASSERT_EQ(df_, e_);
    ASSERT_EQ(de_, g_);
  }
}

TEST_F(InferCodecTest, ReadsFieldsInAnyOrder) {
  inference::ModelInferResponse raw = Good(), rest = Good();
  raw.Clear();
  *raw.mutable_raw_output_contents() = rest.raw_output_contents();
  rest.clear_raw_output_contents();
  const std::string response = raw.SerializeAsString() + rest.SerializeAsString();
  EXPECT_TRUE(DecodeInferResponse(Buffer(response), inference_).ok());
  EXPECT_EQ(h_, dw_);
}

TEST_F(InferCodecTest, LetsUnknownFieldsBe) {
  // Fields 100 (a varint), 101 (fixed 32), 102 (fixed 64) and 103 (bytes).
  const std::string unknown(
      "\xa0\x06\x01\xad\x06"
      "abcd\xb1\x06"
      "abcdefgh\xba\x06\x01x",
      23);
  EXPECT_TRUE(DecodeInferResponse(Buffer(unknown + Good().SerializeAsString()), inference_).ok());
}

TEST_F(InferCodecTest, RefusesEveryTruncation) {
  const std::string response = Good().SerializeAsString();
  for (size_t size = 0; size < response.size(); ++size) {
    EXPECT_FALSE(DecodeInferResponse(Buffer(response.substr(0, size), 7), inference_).ok()) << size;
  }
}

TEST_F(InferCodecTest, SurvivesEveryChangedByte) {
  const std::string response = Good().SerializeAsString();
  for (size_t k = 0; k < response.size(); ++k) {
    for (const int value : {0x00, 0x01, 0x7f, 0x80, 0xff}) {
      std::string changed = response;
      changed[k] = static_cast<char>(value);
      DecodeInferResponse(Buffer(changed, 3), inference_).status().IgnoreError();
    }
  }
}

TEST_F(InferCodecTest, RefusesWhatIsNoMessage) {
  constexpr char kNoMessage[] = "bad response of 'swiglu_backward_fp16': not a ModelInferResponse";
  EXPECT_EQ(Refusal(std::string("\x00", 1)), kNoMessage);
  EXPECT_EQ(Refusal("\x2a\xff\xff\xff\xff\x0f"), kNoMessage);  // 4 GiB of outputs
  EXPECT_EQ(Refusal("\x2a\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"), kNoMessage);  // no varint
  EXPECT_EQ(Refusal("\x2b\x2b\x2b"), kNoMessage);                                  // open groups
  EXPECT_EQ(Refusal(Good().SerializeAsString() + "\x0c"), kNoMessage);             // group's end
}

TEST_F(InferCodecTest, RefusesAnEnvelopeWithoutEnd) {
  auto response = Good();
  response.set_id(std::string(2 << 20, 'x'));
  EXPECT_EQ(Refusal(response), "bad response of 'swiglu_backward_fp16': not a ModelInferResponse");
}

TEST_F(InferCodecTest, RefusesWrongSizes) {
  auto response = Good();
  response.set_raw_output_contents(1, "abc");
  EXPECT_EQ(Refusal(response),
            "bad response of 'swiglu_backward_fp16': output 'df' has 3 bytes; shape [2,3] of FP16 "
            "needs 12");
  response = Good();
  response.set_raw_output_contents(0, std::string(13, 'x'));
  EXPECT_EQ(Refusal(response),
            "bad response of 'swiglu_backward_fp16': output 'h' has 13 bytes; shape [2,3] of FP16 "
            "needs 12");
  // The length says 2^64 - 1.
  EXPECT_EQ(Refusal("\x32\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"),
            "bad response of 'swiglu_backward_fp16': output 'h' has 18446744073709551615 bytes; "
            "shape [2,3] of FP16 needs 12");
}

TEST_F(InferCodecTest, RefusesWrongNumbersOfOutputs) {
  auto response = Good();
  response.add_raw_output_contents(dw_);
  EXPECT_EQ(Refusal(response),
            "bad response of 'swiglu_backward_fp16': it has the bytes of more than 3 outputs");
  response = Good();
  response.mutable_raw_output_contents()->RemoveLast();
  EXPECT_EQ(Refusal(response),
            "bad response of 'swiglu_backward_fp16': it has the bytes of 2 outputs; expected 3");
  response = Good();
  response.mutable_outputs()->RemoveLast();
  EXPECT_EQ(Refusal(response),
            "bad response of 'swiglu_backward_fp16': it has 2 outputs; expected 3");
}

TEST_F(InferCodecTest, RefusesWrongNamesDatatypesAndShapes) {
  auto response = Good();
  response.mutable_outputs(2)->set_name("df");
  EXPECT_EQ(Refusal(response),
            "bad response of 'swiglu_backward_fp16': an output is 'df'; expected 'de'");
  response = Good();
  response.mutable_outputs(0)->set_datatype("BF16");
  EXPECT_EQ(Refusal(response),
            "bad response of 'swiglu_backward_fp16': output 'h' is BF16; expected FP16");
  response = Good();
  response.mutable_outputs(1)->set_shape(0, 3);
  EXPECT_EQ(Refusal(response),
            "bad response of 'swiglu_backward_fp16': shape of 'df' is [3,3]; expected [2,3]");
}

}  // namespace
}  // namespace swiglu::client
