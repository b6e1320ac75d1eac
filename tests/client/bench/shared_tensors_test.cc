// SPDX-License-Identifier: Apache-2.0
//
// Both clients of a load with tensors in shared memory, against a server that echoes in regions,
// and the comparison of results afterwards.
#include "client/bench/shared_tensors.h"

#include <cstring>
#include <functional>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "client/bench/load.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/client/fake_regions.h"
#include "tests/client/fake_server.h"

namespace swiglu::bench {
namespace {

using client::FakeCall;
using client::FakeRegions;
using client::FakeReply;
using client::FakeServer;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

using Connector = absl::StatusOr<std::unique_ptr<Load>>(const LoadOptions&,
                                                        const std::vector<RequestData>*);

class SharedTensorsTest : public ::testing::TestWithParam<Connector*> {
 protected:
  // Requests of 64 and of 1000 elements.
  void SetUp() override {
    options_.server = server_.address();
    options_.model = FindModel("swiglu_backward_fp16");
    options_.request_bytes = {{384, 1}, {6000, 1}};
    options_.num_connections = 2;
    options_.num_in_flight = 4;
    options_.num_threads = 2;
    options_.shared_memory = SharedMemory::kSystem;
    client_ = std::make_unique<client::Client>(*client::Client::Create(server_.address()));
  }

  // Runs a load of that many requests, and keeps its tensors.
  Tally RunLoad(int64_t num_requests) {
    data_ = MakeRequestData(options_);
    auto tensors = SharedTensors::Create(*client_, options_.shared_memory, options_.num_in_flight,
                                         data_.back());
    EXPECT_TRUE(tensors.ok()) << tensors.status();
    tensors_ = *std::move(tensors);
    options_.shared_tensors = tensors_.get();
    const auto load = GetParam()(options_, &data_);
    EXPECT_TRUE(load.ok()) << load.status();
    Pace pace({.warm_up = std::chrono::seconds(0), .num_requests = num_requests}, Clock::now());
    (*load)->Start(&pace);
    return (*load)->Finish();
  }

  LoadOptions options_;
  FakeRegions regions_;
  std::function<void(const FakeCall&)> on_call_ = [](const FakeCall&) {};
  std::function<void(FakeReply&)> on_reply_ = [](FakeReply&) {};
  FakeServer server_{[this](const FakeCall& call) {
    on_call_(call);
    FakeReply reply = regions_.Answer(call);
    if (call.method == "ModelInfer") on_reply_(reply);
    return reply;
  }};
  std::unique_ptr<client::Client> client_;
  std::vector<RequestData> data_;
  std::unique_ptr<SharedTensors> tensors_;
};

TEST_P(SharedTensorsTest, EachRequestHasASetOfItsOwnAndIsRight) {
  std::set<int64_t> offsets;
  size_t largest = 0;
  on_call_ = [&](const FakeCall& call) {
    if (call.method == "ModelInfer") largest = std::max(largest, call.message.size());
  };
  on_reply_ = [&](FakeReply&) {
    EXPECT_EQ(regions_.last_infer().raw_input_contents_size(), 0);
    const inference::ModelInferRequest last = regions_.last_infer();
    for (const auto& input : last.inputs()) {
      const auto offset = input.parameters().find("shared_memory_offset");
      offsets.insert(offset == input.parameters().end() ? 0 : offset->second.int64_param());
    }
  };
  const Tally tally = RunLoad(200);
  EXPECT_EQ(tally.Total().latency.count(), 200);
  EXPECT_EQ(tally.NumFailed(), 0) << tally.example();
  // The bytes of the tensors count, not those of the messages.
  EXPECT_EQ(tally.Total().bytes_in,
            384 * tally.sizes()[0].latency.count() + 6000 * tally.sizes()[1].latency.count());
  EXPECT_EQ(tally.Total().bytes_out, tally.Total().bytes_in);
  EXPECT_LT(largest, 1000u);
  on_reply_ = [](FakeReply&) {};
  const auto num_checked = tensors_->Check(*client_);
  ASSERT_TRUE(num_checked.ok()) << num_checked.status();
  EXPECT_GE(*num_checked, 1);
  EXPECT_LE(*num_checked, 4);
  EXPECT_EQ(static_cast<int64_t>(offsets.size()), 3 * *num_checked);
  tensors_.reset();
  EXPECT_THAT(regions_.regions(), IsEmpty());
}

TEST_P(SharedTensorsTest, InputsDifferFromSetToSet) {
  RunLoad(1);
  const auto& bytes = regions_.regions().begin()->second;
  const size_t set_bytes = bytes.size() / 4;
  const client::RegionPart second = tensors_->Input(1, 0, data_.back()).part.value();
  EXPECT_EQ(static_cast<size_t>(second.offset), set_bytes);
  EXPECT_EQ(std::memcmp(bytes.data() + set_bytes, data_.back().input(0).data() + 2, 1998), 0);
  EXPECT_EQ(std::memcmp(bytes.data() + set_bytes + 1998, data_.back().input(0).data(), 2), 0);
}

TEST_P(SharedTensorsTest, ResultThatWasNotWrittenIsFound) {
  on_reply_ = [&](FakeReply&) {
    const auto df = regions_.last_infer().outputs(1).parameters();
    std::byte* const place =
        regions_.regions().begin()->second.data() + df.at("shared_memory_offset").int64_param();
    // The request may be a later one than that of the reply, so a place may come twice.
    place[4] &= ~std::byte{1};
  };
  RunLoad(20);
  on_reply_ = [](FakeReply&) {};
  const absl::Status status = tensors_->Check(*client_).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(std::string(status.message()),
              HasSubstr("wrong result: byte 4 of output 'df' of request "));
}

TEST_P(SharedTensorsTest, FailedRequestIsNotCompared) {
  on_reply_ = [](FakeReply& reply) {
    reply.status = grpc::Status(grpc::StatusCode::INTERNAL, "device 0 failed");
  };
  const Tally tally = RunLoad(20);
  EXPECT_EQ(tally.NumFailed(), 20);
  on_reply_ = [](FakeReply&) {};
  EXPECT_EQ(tensors_->Check(*client_).value(), 0);
}

INSTANTIATE_TEST_SUITE_P(Raw, SharedTensorsTest, ::testing::Values(&ConnectRawLoad));
INSTANTIATE_TEST_SUITE_P(Library, SharedTensorsTest, ::testing::Values(&CreateLibraryLoad));

}  // namespace
}  // namespace swiglu::bench
