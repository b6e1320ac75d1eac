// SPDX-License-Identifier: Apache-2.0
//
// From CUDA errors to statuses and kinds.
#include "server/gpu/cuda_status.h"

#include <gtest/gtest.h>

#include <set>
#include <string>

#include "server/gpu/cuda_probe.h"
#include "server/gpu/device_faults.h"

namespace swiglu::server {
namespace {

TEST(CudaStatusTest, EveryErrorIsOfTheKindThatItsNumberSays) {
  const std::set<int> sticky = {214, 220, 226, 700, 702, 709, 710, 714,
                                715, 716, 717, 718, 719, 721, 810, 911};
  for (int code = 1; code < 1000; ++code) {
    const DeviceError expected = code == 2                ? DeviceError::kOutOfMemory
                                 : sticky.count(code) > 0 ? DeviceError::kSticky
                                                          : DeviceError::kOther;
    EXPECT_EQ(ClassifyCudaError(static_cast<cudaError_t>(code)), expected) << "error " << code;
  }
}

TEST(CudaStatusTest, GivesTheContractsCodesAndSentences) {
  EXPECT_EQ(CudaStatus(cudaSuccess, 0), absl::OkStatus());
  EXPECT_EQ(CudaStatus(cudaErrorIllegalAddress, 0),
            StickyStatus(0, "cudaErrorIllegalAddress: an illegal memory access was encountered"));
  EXPECT_EQ(CudaStatus(cudaErrorMemoryAllocation, 3),
            absl::ResourceExhaustedError("device 3 is out of memory"));
  EXPECT_EQ(CudaStatus(cudaErrorInvalidValue, 1),
            absl::InternalError("device 1: cudaErrorInvalidValue: invalid argument"));
}

std::string ProbeSentence(cudaError_t error, int driver_version) {
  const absl::Status status = ProbeStatus(error, driver_version, 13000);
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  return std::string(status.message());
}

TEST(CudaProbeTest, SaysWhatIsMissing) {
  EXPECT_TRUE(ProbeStatus(cudaSuccess, 13000, 13000).ok());
  EXPECT_EQ(ProbeSentence(cudaErrorInsufficientDriver, 0), "no NVIDIA driver");
  EXPECT_EQ(ProbeSentence(cudaErrorNoDevice, 13000), "no CUDA device found");
  EXPECT_EQ(ProbeSentence(cudaErrorInsufficientDriver, 12040),
            "the NVIDIA driver supports CUDA 12.4 at most; this build needs 13.0");
  EXPECT_EQ(ProbeSentence(cudaErrorSystemDriverMismatch, 13000),
            "CUDA does not start: cudaErrorSystemDriverMismatch: system has unsupported display "
            "driver / cuda driver combination");
}

}  // namespace
}  // namespace swiglu::server
