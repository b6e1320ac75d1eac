// SPDX-License-Identifier: Apache-2.0
//
// Which device errors are reported, and how often; also those that a load of weights meets.
#include "server/gpu/device_faults.h"

#include <gtest/gtest.h>

#include <chrono>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "server/device/reporting_loader.h"
#include "server/weights/mlp_files.h"
#include "tests/client/temp_folder.h"
#include "tests/weights/fake_loader.h"
#include "tests/weights/model_writer.h"

namespace swiglu::server {
namespace {

using Reports = std::vector<std::pair<int, DeviceError>>;

class ReportRecorder final : public Observer {
 public:
  void DeviceFailed(int device, DeviceError kind) override { reports.emplace_back(device, kind); }
  void RequestFinished(const RequestRecord&) override {}
  void RequestSent(const Model*, std::chrono::nanoseconds, std::chrono::nanoseconds) override {}
  void BatchFinished(const BatchRecord&) override {}

  Reports reports;
};

class DeviceFaultsTest : public testing::Test {
 protected:
  // Loads a layer with a loader that returns `status`.
  absl::Status Load(const absl::Status& status) {
    const TempFolder folder;
    const auto files = MlpFiles::Open(
        {"m", folder.Write("m.safetensors", ModelFile(SmallMlp("layers.0.mlp.", 1))), {}});
    EXPECT_TRUE(files.ok()) << files.status();
    auto loader = std::make_unique<FakeLoader>();
    loader->before = [&status](int, const Weights*) { return status; };
    ReportingLoader reporting(std::move(loader), &faults_);
    return reporting.Load(**files, 0, nullptr, [](int64_t) { return absl::OkStatus(); }).status();
  }

  ReportRecorder recorder_;
  DeviceFaults faults_{&recorder_};
};

TEST_F(DeviceFaultsTest, ReportsTheFirstStickyErrorAndEveryOther) {
  for (int i = 0; i < 2; ++i) faults_.Report(1, DeviceError::kOther, "other");
  EXPECT_EQ(faults_.failed_device(), std::nullopt);
  for (const int device : {3, 1}) faults_.Report(device, DeviceError::kSticky, "sticky");
  EXPECT_EQ(
      recorder_.reports,
      (Reports{{1, DeviceError::kOther}, {1, DeviceError::kOther}, {3, DeviceError::kSticky}}));
  EXPECT_EQ(faults_.failed_device(), 3);
}

TEST_F(DeviceFaultsTest, ReportsAStickyErrorOfALoad) {
  const absl::Status status = Load(StickyStatus(12, "cudaErrorLaunchFailure: it failed"));
  EXPECT_EQ(status.code(), absl::StatusCode::kInternal);
  EXPECT_EQ(status.message(), "device 12 failed");
  EXPECT_EQ(recorder_.reports, (Reports{{12, DeviceError::kSticky}}));
  EXPECT_EQ(faults_.failed_device(), 12);
}

TEST_F(DeviceFaultsTest, ReportsNoOtherEndOfALoad) {
  EXPECT_TRUE(Load(absl::OkStatus()).ok());
  EXPECT_EQ(Load(absl::InternalError("device 0 failed")).message(), "device 0 failed");
  EXPECT_EQ(recorder_.reports, Reports{});
}

}  // namespace
}  // namespace swiglu::server
