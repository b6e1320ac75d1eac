// SPDX-License-Identifier: Apache-2.0
//
// The monitor over an NVML that stands in for the driver's: it samples at once and again, it is
// never waited for, and what cannot be had is missing, not wrong.
#include "server/gpu/gpu_monitor.h"

#include <chrono>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "gtest/gtest.h"
#include "tests/device/fake_nvml_library.h"
#ifdef SWIGLU_CUDA
#include "server/gpu/cuda_probe.h"
#endif

namespace swiglu::server {
namespace {

using std::chrono::hours;
using std::chrono::milliseconds;
using std::chrono::seconds;

// An ordinal that CUDA does not have, so that these tests do not depend on the machine.
constexpr int kOrdinal = 1000;

std::vector<DeviceInfo> OneDevice(std::string pci_bus_id = "0000:1B:00.0") {
  return {{kOrdinal, "fake", std::move(pci_bus_id)}};
}

// No second sample within a test.
GpuMonitorOptions SampleOnce() { return {hours(1), FAKE_NVML}; }

class GpuMonitorTest : public testing::Test {
 protected:
  // From here on a sample hangs; returns how many have begun until then.
  int Hold() {
    return fake_.With([](FakeNvml& nvml) {
      nvml.held = true;
      return nvml.num_samples;
    });
  }

  FakeNvmlLibrary fake_{FAKE_NVML};
};

TEST_F(GpuMonitorTest, HasFiguresFromTheStart) {
  const GpuMonitor monitor(OneDevice(), SampleOnce());
  const std::optional<GpuFigures> figures = monitor.figures(kOrdinal);
  ASSERT_TRUE(figures.has_value());
  EXPECT_EQ(figures->temperature_celsius, 41);
  EXPECT_EQ(figures->uuid, "GPU-01234567-89ab-cdef-0123-456789abcdef");
}

TEST_F(GpuMonitorTest, SamplesAgainAndAgain) {
  const GpuMonitor monitor(OneDevice(), {milliseconds(1), FAKE_NVML});
  fake_.With([](FakeNvml& nvml) { nvml.celsius = 90; });
  const int seen = fake_.With([](FakeNvml& nvml) { return nvml.num_samples; });
  // The second one after the change has begun, so the first is there.
  fake_.AwaitSamples(seen + 2);
  EXPECT_EQ(monitor.figures(kOrdinal).value().temperature_celsius, 90);
}

TEST_F(GpuMonitorTest, AnNvmlThatHangsIsNotWaitedFor) {
  const GpuMonitor monitor(OneDevice(), {milliseconds(1), FAKE_NVML});
  const int seen = Hold();
  fake_.AwaitSamples(seen + 1);  // it hangs now
  EXPECT_EQ(monitor.figures(kOrdinal).value().temperature_celsius, 41);
  EXPECT_EQ(monitor.memory_used_bytes(kOrdinal), std::nullopt);
  fake_.With([](FakeNvml& nvml) { nvml.held = false; });
}

TEST_F(GpuMonitorTest, AnNvmlThatHangsDoesNotHoldUpTheEnd) {
  {
    const GpuMonitor monitor(OneDevice(), {milliseconds(1), FAKE_NVML, milliseconds(1)});
    const int seen = Hold();
    fake_.AwaitSamples(seen + 1);
  }
  // The thread ends by itself as soon as it can, and the library with it.
  const int stopped = fake_.With([](FakeNvml& nvml) {
    nvml.held = false;
    return nvml.num_shutdowns;
  });
  EXPECT_EQ(stopped, 0);
  fake_.AwaitShutdowns(1);
}

TEST_F(GpuMonitorTest, OldFiguresAreNone) {
  const GpuMonitor monitor(OneDevice(), SampleOnce());
  const auto now = GpuMonitor::Clock::now();
  EXPECT_TRUE(monitor.figures(kOrdinal, now).has_value());
  EXPECT_FALSE(monitor.figures(kOrdinal, now + seconds(11)).has_value());
}

TEST_F(GpuMonitorTest, FindsTheGpuByItsPlaceOnTheBus) {
  const GpuMonitor elsewhere(OneDevice("0000:99:00.0"), SampleOnce());
  EXPECT_FALSE(elsewhere.figures(kOrdinal).has_value());
}

TEST_F(GpuMonitorTest, KnowsOnlyItsOwnDevices) {
  const GpuMonitor monitor(OneDevice(), SampleOnce());
  EXPECT_FALSE(monitor.figures(0).has_value());
  EXPECT_EQ(monitor.memory_used_bytes(0), std::nullopt);
}

TEST_F(GpuMonitorTest, AMachineWithoutNvmlHasNoFigures) {
  const GpuMonitor monitor(OneDevice(), {hours(1), "libno-such-nvml.so.1"});
  EXPECT_FALSE(monitor.figures(kOrdinal).has_value());
  EXPECT_EQ(monitor.memory_used_bytes(kOrdinal), std::nullopt);
}

TEST_F(GpuMonitorTest, WithoutDevicesItAsksNothing) {
  const GpuMonitor monitor({}, {milliseconds(1), FAKE_NVML});
  EXPECT_FALSE(monitor.figures(0).has_value());
  EXPECT_EQ(fake_.With([](FakeNvml& nvml) { return nvml.num_inits; }), 0);
}

TEST_F(GpuMonitorTest, ManyReadersAndTheSamplerDoNotMeet) {
  const GpuMonitor monitor(OneDevice(), {milliseconds(1), FAKE_NVML});
  std::vector<std::thread> readers;
  for (int t = 0; t < 4; ++t) {
    readers.emplace_back([&] {
      for (int i = 0; i < 1000; ++i) {
        EXPECT_TRUE(monitor.figures(kOrdinal).has_value());
        monitor.memory_used_bytes(kOrdinal);
      }
    });
  }
  fake_.AwaitSamples(3);
  for (std::thread& reader : readers) reader.join();
}

#ifdef SWIGLU_CUDA
TEST(GpuMonitorOnDeviceTest, EveryDeviceSaysWhatItIsAndHolds) {
  const auto devices = FindCudaDevices();
  if (!devices.ok()) GTEST_SKIP() << devices.status().message();
  const GpuMonitor monitor(*devices);
  for (const DeviceInfo& device : *devices) {
    EXPECT_GT(monitor.memory_used_bytes(device.ordinal).value_or(0), 0);
    EXPECT_FALSE(monitor.memory_used_bytes(device.ordinal, GpuMonitor::Clock::now() + seconds(11)));
    const std::optional<GpuFigures> figures = monitor.figures(device.ordinal);
    ASSERT_TRUE(figures.has_value()) << device.pci_bus_id;
    EXPECT_EQ(figures->uuid.substr(0, 4), "GPU-");
    EXPECT_GT(figures->memory_used_bytes.value(), 0);
    EXPECT_GT(figures->memory_total_bytes.value(), figures->memory_used_bytes.value());
    EXPECT_LE(figures->utilization_ratio.value_or(0), 1);
    EXPECT_GT(figures->power_watts.value(), 10);
    EXPECT_GE(figures->power_limit_watts.value(), 50);
    EXPECT_GT(figures->temperature_celsius.value(), 10);
    EXPECT_LT(figures->temperature_celsius.value(), 110);
    EXPECT_TRUE(figures->throttling.has_value());
  }
}
#endif

}  // namespace
}  // namespace swiglu::server
