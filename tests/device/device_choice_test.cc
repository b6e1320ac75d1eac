// SPDX-License-Identifier: Apache-2.0
//
// What the server runs on, from what was asked for and what was found: choices and sentences.
#include "server/gpu/device_choice.h"

#include <gtest/gtest.h>

namespace swiglu::server {
namespace {

using Found = absl::StatusOr<std::vector<DeviceInfo>>;

Found NoDriver() { return absl::FailedPreconditionError("no NVIDIA driver"); }
Found TwoDevices() {
  return std::vector<DeviceInfo>{{0, "NVIDIA H100 80GB HBM3"}, {1, "NVIDIA L4"}};
}

std::vector<int> Ordinals(const DeviceChoice& choice) {
  std::vector<int> ordinals;
  for (const DeviceInfo& device : choice.cuda_devices) ordinals.push_back(device.ordinal);
  return ordinals;
}

TEST(DeviceChoiceTest, AutoTakesEveryCudaDevice) {
  const auto choice = ChooseDevices(DeviceKind::kAuto, {}, TwoDevices());
  ASSERT_TRUE(choice.ok());
  EXPECT_EQ(Ordinals(*choice), (std::vector<int>{0, 1}));
  EXPECT_EQ(choice->reason, "cuda: device 0 NVIDIA H100 80GB HBM3, device 1 NVIDIA L4");
}

TEST(DeviceChoiceTest, AutoTakesTheCpuAndSaysWhy) {
  const auto choice = ChooseDevices(DeviceKind::kAuto, {}, NoDriver());
  ASSERT_TRUE(choice.ok());
  EXPECT_TRUE(choice->cuda_devices.empty());
  EXPECT_EQ(choice->reason, "cpu: no NVIDIA driver");
}

TEST(DeviceChoiceTest, CpuIsTakenEvenBesideCudaDevices) {
  const auto choice = ChooseDevices(DeviceKind::kCpu, {}, TwoDevices());
  ASSERT_TRUE(choice.ok());
  EXPECT_TRUE(choice->cuda_devices.empty());
  EXPECT_EQ(choice->reason, "cpu: asked for");
}

TEST(DeviceChoiceTest, CudaNeverFallsBack) {
  const auto choice = ChooseDevices(DeviceKind::kCuda, {}, NoDriver());
  EXPECT_EQ(choice.status(), absl::FailedPreconditionError("CUDA was asked for: no NVIDIA driver"));
}

TEST(DeviceChoiceTest, NamedDevicesAreTakenInTheirOrder) {
  const auto choice = ChooseDevices(DeviceKind::kCuda, {1, 0}, TwoDevices());
  ASSERT_TRUE(choice.ok());
  EXPECT_EQ(Ordinals(*choice), (std::vector<int>{1, 0}));
  EXPECT_EQ(choice->reason, "cuda: device 1 NVIDIA L4, device 0 NVIDIA H100 80GB HBM3");
}

TEST(DeviceChoiceTest, NamingDevicesForbidsAutoToFallBack) {
  const auto choice = ChooseDevices(DeviceKind::kAuto, {0}, NoDriver());
  EXPECT_EQ(choice.status(), absl::FailedPreconditionError("CUDA was asked for: no NVIDIA driver"));
}

TEST(DeviceChoiceTest, RefusesOrdinalsThatAreNotThere) {
  for (int ordinal : {2, -1}) {
    const auto choice = ChooseDevices(DeviceKind::kAuto, {0, ordinal}, TwoDevices());
    EXPECT_EQ(choice.status().code(), absl::StatusCode::kInvalidArgument);
  }
  EXPECT_EQ(ChooseDevices(DeviceKind::kCuda, {2}, TwoDevices()).status().message(),
            "CUDA device 2 does not exist; this host has device 0 NVIDIA H100 80GB HBM3, "
            "device 1 NVIDIA L4");
}

TEST(DeviceChoiceTest, RefusesAnOrdinalNamedTwice) {
  EXPECT_EQ(ChooseDevices(DeviceKind::kCuda, {1, 1}, TwoDevices()).status(),
            absl::InvalidArgumentError("CUDA device 1 is named twice"));
}

TEST(DeviceChoiceTest, RefusesOrdinalsBesideTheCpu) {
  EXPECT_EQ(ChooseDevices(DeviceKind::kCpu, {3}, TwoDevices()).status(),
            absl::InvalidArgumentError("CUDA device 3 is named, but the CPU was asked for"));
}

}  // namespace
}  // namespace swiglu::server
