// SPDX-License-Identifier: Apache-2.0
//
// `swiglu metadata` and `swiglu statistics`, about a server and about one model.
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "proto/inference.pb.h"
#include "tests/client/cli_fixture.h"
#include "tests/client/fake_server.h"
#include "tests/client/unnamed.h"

namespace swiglu {
namespace {

using client::Answer;
using client::FakeCall;
using client::FakeReply;
using client::FakeServer;

FakeReply MetadataOfServer() {
  inference::ServerMetadataResponse response;
  response.set_name("swiglu-server\x1b[2J");
  response.set_version("1.2.3");
  response.add_extensions("statistics");
  response.add_extensions("schedule_policy");
  return Answer(response);
}

FakeReply MetadataOfModel(const FakeCall& call) {
  inference::ModelMetadataRequest request;
  request.ParseFromString(call.message);
  if (request.name() != "one") {
    FakeReply reply;
    reply.status = grpc::Status(grpc::StatusCode::NOT_FOUND, "unknown model");
    return reply;
  }
  inference::ModelMetadataResponse response;
  response.set_name("one");
  response.set_platform("swiglu");
  response.add_versions("1");
  for (const char* name : {"e", "g"}) {
    auto* input = response.add_inputs();
    input->set_name(name);
    input->set_datatype("FP16");
    input->add_shape(-1);
    input->add_shape(64);
  }
  auto* output = response.add_outputs();
  output->set_name("h");
  output->set_datatype("FP32");
  (*response.mutable_properties())["device"] = "cpu (AVX2)";
  return Answer(response);
}

void AddCounters(const std::string& name, inference::ModelStatisticsResponse* response) {
  auto* model = response->add_model_stats();
  model->set_name(name);
  model->set_version("1");
  if (name == "none") return;
  model->set_inference_count(4);
  model->set_execution_count(2);
  auto* times = model->mutable_inference_stats();
  times->mutable_success()->set_count(4);
  times->mutable_success()->set_ns(8'000'000'000);
  times->mutable_fail()->set_count(1);
  times->mutable_queue()->set_ns(2'000'000);
  times->mutable_compute_infer()->set_ns(6'000'000);
}

FakeReply Counters(const FakeCall& call) {
  inference::ModelStatisticsRequest request;
  request.ParseFromString(call.message);
  inference::ModelStatisticsResponse response;
  for (const char* name : {"none", "one"}) {
    if (request.name().empty() || request.name() == name) AddCounters(name, &response);
  }
  return Answer(response);
}

class CliMetadataTest : public CliTest {
 protected:
  // Runs a command about the server, or with `--model` about a model.
  Result Ask(const std::string& command, std::vector<std::string> flags = {}) {
    flags.insert(flags.begin(), {command, "--server", server_.address()});
    return Swiglu(flags);
  }

  // What an answer in JSON begins with.
  std::string JsonStart() const { return absl::StrCat("{\"server\":\"", server_.address(), "\","); }

  FakeServer server_{[](const FakeCall& call) {
    if (call.method == "ServerMetadata") return MetadataOfServer();
    return call.method == "ModelMetadata" ? MetadataOfModel(call) : Counters(call);
  }};
};

TEST_F(CliMetadataTest, MetadataTellsOfTheServer) {
  const Result text = Ask("metadata");
  EXPECT_EQ(text.code, 0) << text.err;
  EXPECT_EQ(text.out, absl::StrCat("server      ", server_.address(),
                                   "\nname        swiglu-server\\u001b[2J\n"
                                   "version     1.2.3\n"
                                   "extensions  statistics, schedule_policy\n"));
  EXPECT_EQ(Ask("metadata", {"--json"}).out,
            absl::StrCat(JsonStart(), R"("name":"swiglu-server\u001b[2J","version":"1.2.3",)",
                         R"("extensions":["statistics","schedule_policy"]})", "\n"));
}

TEST_F(CliMetadataTest, MetadataTellsOfAModel) {
  EXPECT_EQ(Ask("metadata", {"--model=one"}).out,
            absl::StrCat("server      ", server_.address(),
                         "\nmodel       one\n"
                         "platform    swiglu\n"
                         "versions    1\n"
                         "input       e FP16 [-1,64]\n"
                         "input       g FP16 [-1,64]\n"
                         "output      h FP32 []\n"
                         "property    device = cpu (AVX2)\n"));
  EXPECT_EQ(Ask("metadata", {"--model=one", "--json"}).out,
            absl::StrCat(JsonStart(), R"("name":"one","platform":"swiglu","versions":["1"],)",
                         R"("inputs":[{"name":"e","datatype":"FP16","shape":[-1,64]},)",
                         R"({"name":"g","datatype":"FP16","shape":[-1,64]}],)",
                         R"("outputs":[{"name":"h","datatype":"FP32","shape":[]}],)",
                         R"json("properties":{"device":"cpu (AVX2)"}})json", "\n"));
}

TEST_F(CliMetadataTest, UnknownModelIsFour) {
  const Result run = Ask("metadata", {"--model=two"});
  EXPECT_EQ(run.code, 4);
  EXPECT_EQ(run.out, "");
  EXPECT_EQ(client::Unnamed(run.err), "swiglu: NOT_FOUND: unknown model\n");
}

constexpr char kTableHead[] =
    "model                    requests    batches  succeeded     failed    request s      queue s  "
    "  compute s  request ms    queue ms  compute ms\n";
constexpr char kTableOfOne[] =
    "one                             4          2          4          1        8.000        0.002  "
    "      0.006    2000.000       0.500       1.500\n";
constexpr char kTableOfNone[] =
    "none                            0          0          0          0        0.000        0.000  "
    "      0.000           -           -           -\n";
constexpr char kTableNote[] =
    "\ns: of all requests that succeeded, together; ms: of one of them, on average\n";

TEST_F(CliMetadataTest, StatisticsHasTheCountersOfTheModels) {
  const Result all = Ask("statistics");
  EXPECT_EQ(all.code, 0) << all.err;
  EXPECT_EQ(all.out, absl::StrCat(kTableHead, kTableOfNone, kTableOfOne, kTableNote));
  EXPECT_EQ(Ask("statistics", {"--model=one"}).out,
            absl::StrCat(kTableHead, kTableOfOne, kTableNote));
}

TEST_F(CliMetadataTest, StatisticsAsJson) {
  EXPECT_EQ(
      Ask("statistics", {"--json"}).out,
      absl::StrCat(
          JsonStart(), R"("models":[{"name":"none","version":"1","requests":0,"batches":0,)",
          R"("succeeded":0,"failed":0,"request_ms":{"total":0.0,"mean":null},)",
          R"("queue_ms":{"total":0.0,"mean":null},"compute_ms":{"total":0.0,"mean":null}},)",
          R"({"name":"one","version":"1","requests":4,"batches":2,"succeeded":4,"failed":1,)",
          R"("request_ms":{"total":8000.0,"mean":2000.0},"queue_ms":{"total":2.0,"mean":0.5},)",
          R"("compute_ms":{"total":6.0,"mean":1.5}}]})", "\n"));
}

TEST_F(CliMetadataTest, MissingServerIsThree) {
  EXPECT_EQ(Swiglu({"metadata", kNoServer}).code, 3);
  EXPECT_EQ(Swiglu({"statistics", kNoServer}).code, 3);
}

}  // namespace
}  // namespace swiglu
