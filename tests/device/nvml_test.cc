// SPDX-License-Identifier: Apache-2.0
//
// NVML over libraries that stand in for the driver's: each figure in its unit, each gap left out,
// each reason for having none in words.
#include "server/gpu/nvml.h"

#include <memory>
#include <optional>
#include <string>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "tests/device/fake_nvml_library.h"

namespace swiglu::server {
namespace {

constexpr char kBusId[] = "0000:1B:00.0";

std::string OpenError(const std::string& library) {
  const auto nvml = Nvml::Open(library);
  return nvml.ok() ? "no error" : nvml.status().ToString();
}

class NvmlTest : public testing::Test {
 protected:
  GpuFigures Read(const std::string& library = FAKE_NVML) {
    const auto nvml = Nvml::Open(library);
    EXPECT_TRUE(nvml.ok()) << nvml.status();
    if (!nvml.ok()) return {};
    const auto gpu = (*nvml)->Find(kBusId);
    EXPECT_TRUE(gpu.ok()) << gpu.status();
    return gpu.ok() ? (*nvml)->Read(*gpu) : GpuFigures();
  }

  FakeNvmlLibrary fake_{FAKE_NVML};
};

TEST_F(NvmlTest, ReadsEveryFigureInBaseUnits) {
  const GpuFigures figures = Read();
  EXPECT_EQ(figures.uuid, "GPU-01234567-89ab-cdef-0123-456789abcdef");
  EXPECT_DOUBLE_EQ(figures.utilization_ratio.value(), 0.37);
  EXPECT_EQ(figures.memory_total_bytes, 85'899'345'920.0);
  EXPECT_EQ(figures.memory_used_bytes, 1'073'741'824.0);
  EXPECT_DOUBLE_EQ(figures.power_watts.value(), 123.456);
  EXPECT_DOUBLE_EQ(figures.power_limit_watts.value(), 700);
  EXPECT_DOUBLE_EQ(figures.energy_joules.value(), 98'765'432.1);
  EXPECT_EQ(figures.temperature_celsius, 41);
  EXPECT_EQ(figures.corrected_ecc_errors, 3);
  EXPECT_EQ(figures.uncorrected_ecc_errors, 1);
  EXPECT_TRUE(figures.throttling.has_value());
}

TEST_F(NvmlTest, EachReasonForLowerClocksHasItsName) {
  const struct {
    unsigned long long bits;
    bool thermal, power, hardware;
  } kCases[] = {
      {0x00, false, false, false},  {0x01, false, false, false},  // idle
      {0x102, false, false, false},                               // as somebody set them
      {0x04, false, true, false},                                 // software power cap
      {0x08, false, false, true},                                 // hardware slowdown
      {0x80, false, false, true},                                 // power brake
      {0x20, true, false, false},                                 // too hot, says the driver
      {0x40, true, false, false},                                 // too hot, says the board
      {0xEC, true, true, true},
  };
  for (const auto& test : kCases) {
    fake_.With([&](FakeNvml& nvml) { nvml.throttle_reasons = test.bits; });
    const std::optional<ClockThrottling> throttling = Read().throttling;
    ASSERT_TRUE(throttling.has_value());
    EXPECT_EQ(throttling->thermal, test.thermal) << test.bits;
    EXPECT_EQ(throttling->power, test.power) << test.bits;
    EXPECT_EQ(throttling->hardware, test.hardware) << test.bits;
  }
}

// Which figures are there, by name.
std::string Present(const GpuFigures& figures) {
  std::string names;
  const auto add = [&names](bool is_there, const char* name) {
    if (is_there) absl::StrAppend(&names, name, " ");
  };
  add(!figures.uuid.empty(), "uuid");
  add(figures.utilization_ratio.has_value(), "utilization");
  add(figures.memory_used_bytes.has_value(), "used");
  add(figures.memory_total_bytes.has_value(), "total");
  add(figures.power_watts.has_value(), "power");
  add(figures.power_limit_watts.has_value(), "limit");
  add(figures.energy_joules.has_value(), "energy");
  add(figures.temperature_celsius.has_value(), "temperature");
  add(figures.throttling.has_value(), "throttling");
  add(figures.corrected_ecc_errors.has_value(), "corrected");
  add(figures.uncorrected_ecc_errors.has_value(), "uncorrected");
  return names;
}

TEST_F(NvmlTest, LeavesOutExactlyWhatIsNotAnswered) {
  const struct {
    const char* function;
    const char* missing;
  } kCases[] = {
      {"nvmlDeviceGetUUID", "uuid "},
      {"nvmlDeviceGetUtilizationRates", "utilization "},
      {"nvmlDeviceGetMemoryInfo", "used total "},
      {"nvmlDeviceGetPowerUsage", "power "},
      {"nvmlDeviceGetEnforcedPowerLimit", "limit "},
      {"nvmlDeviceGetTotalEnergyConsumption", "energy "},
      {"nvmlDeviceGetTemperature", "temperature "},
      {"nvmlDeviceGetCurrentClocksThrottleReasons", "throttling "},
      {"corrected", " corrected"},
      {"uncorrected", "uncorrected "},
  };
  const std::string all = Present(Read());
  for (const auto& test : kCases) {
    fake_.With([&](FakeNvml& nvml) { nvml.failing = {test.function}; });
    std::string expected = all;
    expected.erase(expected.find(test.missing), std::string(test.missing).size());
    EXPECT_EQ(Present(Read()), expected) << test.function;
  }
}

TEST_F(NvmlTest, AnOlderLibraryHasFewerFigures) {
  EXPECT_EQ(Present(Read(FAKE_NVML_OLD)),
            "uuid utilization used total power limit temperature corrected uncorrected ");
}

TEST_F(NvmlTest, ALibraryThatIsNotThereIsNamed) {
  EXPECT_EQ(OpenError("libno-such-nvml.so.1"),
            "FAILED_PRECONDITION: libno-such-nvml.so.1 cannot be loaded");
}

TEST_F(NvmlTest, AFunctionThatNothingGoesWithoutIsNamed) {
  EXPECT_EQ(OpenError(FAKE_NVML_BROKEN), absl::StrCat("FAILED_PRECONDITION: ", FAKE_NVML_BROKEN,
                                                      " has no nvmlDeviceGetHandleByPciBusId_v2"));
}

TEST_F(NvmlTest, ALibraryThatDoesNotStartSaysWhy) {
  fake_.With([](FakeNvml& nvml) { nvml.init_result = 3; });
  EXPECT_EQ(OpenError(FAKE_NVML),
            absl::StrCat("FAILED_PRECONDITION: ", FAKE_NVML, " does not start: Not Supported"));
  EXPECT_EQ(fake_.With([](FakeNvml& nvml) { return nvml.num_shutdowns; }), 0);
}

TEST_F(NvmlTest, AGpuThatIsNotThereIsNamed) {
  const auto nvml = Nvml::Open(FAKE_NVML);
  ASSERT_TRUE(nvml.ok()) << nvml.status();
  EXPECT_EQ((*nvml)->Find("0000:99:00.0").status(),
            absl::FailedPreconditionError("NVML has no GPU at 0000:99:00.0: Not Found"));
}

TEST_F(NvmlTest, IsStoppedAsOftenAsItWasStarted) {
  Read();
  Read();
  EXPECT_EQ(fake_.With([](FakeNvml& nvml) { return nvml.num_inits; }), 2);
  EXPECT_EQ(fake_.With([](FakeNvml& nvml) { return nvml.num_shutdowns; }), 2);
}

}  // namespace
}  // namespace swiglu::server
