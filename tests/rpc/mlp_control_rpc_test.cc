// SPDX-License-Identifier: Apache-2.0
//
// RepositoryModelLoad through a real server, with a reloader that the test ends by hand.
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "server/core/mlp_reloader.h"
#include "tests/rpc/server_fixture.h"

namespace swiglu::server {
namespace {

using inference::RepositoryModelLoadRequest;

// Holds every reload until `End`. Thread-safe.
class HoldingReloader final : public MlpReloader {
 public:
  void Reload(const std::string& mlp, std::shared_ptr<const std::atomic<bool>> cancelled,
              Done done) override {
    absl::MutexLock lock(&mutex_);
    held_ = {mlp, std::move(cancelled), std::move(done)};
  }

  // The name of the MLP whose reload is held; waits for one.
  std::string AwaitHeld() {
    absl::MutexLock lock(&mutex_);
    const auto is_held = [this]()
                             ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return held_.has_value(); };
    EXPECT_TRUE(mutex_.AwaitWithTimeout(absl::Condition(&is_held), kPatience));
    return held_.has_value() ? held_->mlp : "none";
  }
  bool is_held() {
    absl::MutexLock lock(&mutex_);
    return held_.has_value();
  }
  bool is_cancelled() {
    absl::MutexLock lock(&mutex_);
    return held_->cancelled->load();
  }
  // REQUIRES: a reload is held.
  void End(std::optional<ReloadRefusal> refusal = std::nullopt) {
    std::optional<Held> held;
    {
      absl::MutexLock lock(&mutex_);
      held.swap(held_);
    }
    held->done(refusal);
  }

 private:
  struct Held {
    std::string mlp;
    std::shared_ptr<const std::atomic<bool>> cancelled;
    Done done;
  };

  absl::Mutex mutex_;
  std::optional<Held> held_ ABSL_GUARDED_BY(mutex_);
};

RepositoryModelLoadRequest LoadRequest(const std::string& model) {
  RepositoryModelLoadRequest request;
  request.set_model_name(model);
  return request;
}

// A call of RepositoryModelLoad on a thread of its own.
class BackgroundLoad {
 public:
  explicit BackgroundLoad(TestServer& server)
      : thread_([this, &server] {
          inference::RepositoryModelLoadResponse response;
          status_ = server.stub->RepositoryModelLoad(&context_, LoadRequest("mlp_m"), &response);
        }) {}
  ~BackgroundLoad() { Wait(); }

  void Cancel() { context_.TryCancel(); }
  const grpc::Status& Wait() {
    if (thread_.joinable()) thread_.join();
    return status_;
  }

 private:
  PatientContext context_;
  grpc::Status status_;
  std::thread thread_;
};

// A server with the MLPs `m`, which has the layers 0 and 1, and `n`.
class MlpLoadRpcTest : public testing::Test {
 protected:
  MlpLoadRpcTest() {
    executor_.Release();
    TestServerOptions options;
    // So that a call that blocked the thread would block all others.
    options.io_threads = 1;
    options.mlp_reloader = &reloader_;
    for (const auto& [mlp, layer] :
         std::vector<std::pair<std::string, int>>{{"m", 0}, {"m", 1}, {"n", 0}}) {
      for (const Op op : {Op::kMlpForward, Op::kMlpBackward}) {
        options.other_models.push_back(MakeMlpModel({.op = op,
                                                     .mlp = mlp,
                                                     .layer = layer,
                                                     .hidden = 16,
                                                     .intermediate = 8,
                                                     .weights = &slot_}));
      }
    }
    server_ = std::make_unique<TestServer>(&executor_, options);
  }

  grpc::Status Load(const RepositoryModelLoadRequest& request) {
    PatientContext context;
    inference::RepositoryModelLoadResponse response;
    return server_->stub->RepositoryModelLoad(&context, request, &response);
  }
  // What the caller gets if its reload ends like this.
  grpc::Status EndedWith(ReloadFault fault, absl::Status status = absl::OkStatus()) {
    BackgroundLoad load(*server_);
    reloader_.AwaitHeld();
    reloader_.End(ReloadRefusal{fault, std::move(status)});
    return load.Wait();
  }

  WeightsSlot slot_;
  HoldingExecutor executor_;
  HoldingReloader reloader_;
  std::unique_ptr<TestServer> server_;
};

TEST_F(MlpLoadRpcTest, AnswersWhenTheWeightsAreThere) {
  BackgroundLoad load(*server_);
  EXPECT_EQ(reloader_.AwaitHeld(), "mlp_m");
  EXPECT_FALSE(reloader_.is_cancelled());
  // Meanwhile the server serves, and its models are ready.
  EXPECT_TRUE(Infer(*server_, GoodRequest(kForwardFp16, {4})).status.ok());
  PatientContext context;
  inference::RepositoryIndexResponse index;
  EXPECT_TRUE(server_->stub->RepositoryIndex(&context, {}, &index).ok());
  EXPECT_EQ(index.models(6).name(), "mlp_m_0_forward");
  EXPECT_EQ(index.models(6).state(), "READY");
  EXPECT_TRUE(reloader_.is_held());
  reloader_.End();
  EXPECT_TRUE(load.Wait().ok()) << load.Wait().error_message();
}

TEST_F(MlpLoadRpcTest, RefusesWhatIsNoWholeMlp) {
  EXPECT_CALL_STATUS(Load(LoadRequest("mlp_x")), grpc::StatusCode::NOT_FOUND,
                     "unknown MLP 'mlp_x': this server has mlp_m, mlp_n");
  EXPECT_CALL_STATUS(Load(LoadRequest("")), grpc::StatusCode::NOT_FOUND,
                     "unknown MLP '': this server has mlp_m, mlp_n");
  EXPECT_CALL_STATUS(Load(LoadRequest("m")), grpc::StatusCode::NOT_FOUND,
                     "unknown MLP 'm': this server has mlp_m, mlp_n");
  EXPECT_CALL_STATUS(Load(LoadRequest("mlp_m_1_backward")), grpc::StatusCode::INVALID_ARGUMENT,
                     "model 'mlp_m_1_backward' is a part of the MLP 'mlp_m'; load the whole MLP");
  EXPECT_CALL_STATUS(Load(LoadRequest("swiglu_forward_fp16")), grpc::StatusCode::INVALID_ARGUMENT,
                     "model 'swiglu_forward_fp16' has no weights to load");
  EXPECT_FALSE(reloader_.is_held());
}

TEST_F(MlpLoadRpcTest, RefusesRepositoriesAndParameters) {
  RepositoryModelLoadRequest request = LoadRequest("mlp_m");
  request.set_repository_name("models");
  EXPECT_CALL_STATUS(Load(request), grpc::StatusCode::INVALID_ARGUMENT,
                     "repository_name is 'models'; this server has no repository with a name");
  request = LoadRequest("mlp_m");
  for (const char* name : {"file:1/model.safetensors", "config", "other"}) {
    (*request.mutable_parameters())[name].set_string_param("x");
  }
  EXPECT_CALL_STATUS(Load(request), grpc::StatusCode::INVALID_ARGUMENT,
                     "parameter 'config' is not supported");
  EXPECT_FALSE(reloader_.is_held());
}

TEST_F(MlpLoadRpcTest, SaysWhyTheWeightsStay) {
  EXPECT_CALL_STATUS(EndedWith(ReloadFault::kLoading), grpc::StatusCode::UNAVAILABLE,
                     "the weights of 'mlp_m' are still being loaded for the first time");
  EXPECT_CALL_STATUS(EndedWith(ReloadFault::kUnderWay), grpc::StatusCode::ABORTED,
                     "the weights of 'mlp_m' are being loaded by another call already");
  EXPECT_CALL_STATUS(EndedWith(ReloadFault::kStopping), grpc::StatusCode::UNAVAILABLE,
                     "server is draining");
  EXPECT_CALL_STATUS(EndedWith(ReloadFault::kFailed, absl::NotFoundError("/f: cannot open")),
                     grpc::StatusCode::FAILED_PRECONDITION,
                     "the weights of 'mlp_m' stay as they were: /f: cannot open");
  EXPECT_CALL_STATUS(EndedWith(ReloadFault::kFailed, absl::ResourceExhaustedError("no room")),
                     grpc::StatusCode::RESOURCE_EXHAUSTED,
                     "the weights of 'mlp_m' stay as they were: no room");
  EXPECT_CALL_STATUS(EndedWith(ReloadFault::kFailed, absl::InternalError("broken")),
                     grpc::StatusCode::INTERNAL,
                     "the weights of 'mlp_m' stay as they were: broken");
}

// A path may have thousands of bytes, and any of them.
TEST_F(MlpLoadRpcTest, CutsALongReason) {
  const grpc::Status status = EndedWith(
      ReloadFault::kFailed, absl::NotFoundError(absl::StrCat("/\n", std::string(9000, 'x'))));
  EXPECT_EQ(status.error_code(), grpc::StatusCode::FAILED_PRECONDITION);
  EXPECT_LT(status.error_message().size(), 2200u);
  EXPECT_EQ(status.error_message().substr(0, 50),
            "the weights of 'mlp_m' stay as they were: /\\nxxxxx");
}

TEST_F(MlpLoadRpcTest, TellsTheReloaderThatItsCallerHasGone) {
  BackgroundLoad load(*server_);
  reloader_.AwaitHeld();
  load.Cancel();
  EXPECT_EQ(load.Wait().error_code(), grpc::StatusCode::CANCELLED);
  EXPECT_TRUE(Eventually([this] { return reloader_.is_cancelled(); }));
  reloader_.End(ReloadRefusal{ReloadFault::kCancelled});
}

TEST_F(MlpLoadRpcTest, ADrainWaitsForTheAnswer) {
  BackgroundLoad load(*server_);
  reloader_.AwaitHeld();
  server_->StartDrain();
  EXPECT_EQ(server_->active().WaitUntilNone(absl::ZeroDuration()), 1);
  reloader_.End(ReloadRefusal{ReloadFault::kStopping});
  EXPECT_CALL_STATUS(load.Wait(), grpc::StatusCode::UNAVAILABLE, "server is draining");
  EXPECT_EQ(server_->active().WaitUntilNone(kPatience), 0);
}

TEST_F(MlpLoadRpcTest, UnloadsNothing) {
  PatientContext context;
  inference::RepositoryModelUnloadResponse response;
  inference::RepositoryModelUnloadRequest request;
  request.set_model_name("mlp_m");
  EXPECT_CALL_STATUS(server_->stub->RepositoryModelUnload(&context, request, &response),
                     grpc::StatusCode::UNIMPLEMENTED,
                     "RepositoryModelUnload: the models of this server are fixed");
}

}  // namespace
}  // namespace swiglu::server
