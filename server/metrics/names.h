// SPDX-License-Identifier: Apache-2.0
//
// Every metric of the server: name, help, type, label names and values, and buckets. The page shows
// nothing else, and nothing else spells a name. Renaming one is a change for every user;
// tests/metrics/golden_metrics.txt records them all.
#pragma once

#include <array>
#include <span>

#include "prometheus/metric_type.h"

namespace swiglu::server::metrics {

using prometheus::MetricType;

struct Metric {
  const char* name;
  MetricType type;
  const char* help;
  // Label names, in the order in which values are given; nullptr past the last.
  std::array<const char*, 3> labels{};
  // Upper bounds of a histogram's buckets, ascending, without +Inf.
  std::span<const double> buckets{};
};

// Values of the label `model` beside the models' own names, and of `device` on the CPU.
inline constexpr char kUnknownModel[] = "unknown";
inline constexpr char kCpuDeviceLabel[] = "cpu";

// Values of the label `code`: gRPC's code names, by absl::StatusCode, which has the same numbers.
inline constexpr std::array<const char*, 17> kCodes = {
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
};

// Values of the label `phase`.
enum class Phase { kReceive, kQueue, kCopyIn, kCompute, kCopyOut, kSend };
inline constexpr std::array<const char*, 6> kPhases = {"receive", "queue",    "copy_in",
                                                       "compute", "copy_out", "send"};

// Values of the label `direction`.
enum class Direction { kIn, kOut };
inline constexpr std::array<const char*, 2> kDirections = {"in", "out"};

// Values of `path`, by Path; of `reason`, by Rejection; of a device error's `kind`, by DeviceError.
inline constexpr std::array<const char*, 4> kPaths = {"cpu", "mapped", "staged", "region"};
inline constexpr std::array<const char*, 7> kReasons = {
    "queue_full", "budget", "too_large", "deadline", "cancelled", "draining", "invalid"};
inline constexpr std::array<const char*, 3> kDeviceErrorKinds = {"sticky", "out_of_memory",
                                                                 "other"};

// Values of used memory's `kind`: MemoryKind's, and registered regions, which no budget covers.
inline constexpr std::array<const char*, 4> kMemoryKinds = {"receive", "staging", "response",
                                                            "region"};

// 10 us to 10 s, three to a decade.
inline constexpr std::array<double, 19> kDurationBuckets = {
    10e-6, 20e-6, 50e-6, 100e-6, 200e-6, 500e-6, 1e-3, 2e-3, 5e-3, 10e-3,
    20e-3, 50e-3, 0.1,   0.2,    0.5,    1,      2,    5,    10};
inline constexpr std::array<double, 9> kBatchRequestBuckets = {1, 2, 4, 8, 16, 32, 64, 128, 256};
// 256 to 2^30, in steps of four.
inline constexpr std::array<double, 12> kBatchElementBuckets = {1 << 8,  1 << 10, 1 << 12, 1 << 14,
                                                                1 << 16, 1 << 18, 1 << 20, 1 << 22,
                                                                1 << 24, 1 << 26, 1 << 28, 1 << 30};

// Requests.
inline constexpr Metric kRequests{
    "swiglu_requests_total",
    MetricType::Counter,
    "Finished ModelInfer calls and stream messages, by how they ended.",
    {"model", "code"}};
inline constexpr Metric kRequestDuration{
    "swiglu_request_duration_seconds",
    MetricType::Histogram,
    "Time from a request's first byte to the last byte of its answer handed to gRPC.",
    {"model"},
    kDurationBuckets};
inline constexpr Metric kPhaseDuration{"swiglu_phase_duration_seconds",
                                       MetricType::Histogram,
                                       "Time that served requests spent in each phase; the phases "
                                       "of a batch count for each of its requests.",
                                       {"model", "phase"},
                                       kDurationBuckets};
inline constexpr Metric kRequestBytes{"swiglu_request_bytes_total",
                                      MetricType::Counter,
                                      "Bytes of request messages (in) and response messages (out).",
                                      {"direction"}};
inline constexpr Metric kElements{
    "swiglu_elements_total",
    MetricType::Counter,
    "Elements of served requests, counted once for each tensor shape.",
    {"model"}};
inline constexpr Metric kRejected{"swiglu_rejected_total",
                                  MetricType::Counter,
                                  "Requests that were refused or dropped, by reason.",
                                  {"reason"}};

// Batches.
inline constexpr Metric kBatchRequests{"swiglu_batch_requests",
                                       MetricType::Histogram,
                                       "Requests in each executed batch.",
                                       {},
                                       kBatchRequestBuckets};
inline constexpr Metric kBatchElements{"swiglu_batch_elements",
                                       MetricType::Histogram,
                                       "Elements in each executed batch.",
                                       {},
                                       kBatchElementBuckets};
inline constexpr Metric kBatches{
    "swiglu_batches_total",
    MetricType::Counter,
    "Executed batches, by operation, dtype and the way that their bytes took to the arithmetic.",
    {"op", "dtype", "path"}};

// State, sampled when the page is read.
inline constexpr Metric kQueuedRequests{"swiglu_queued_requests", MetricType::Gauge,
                                        "Accepted requests that are in no batch yet."};
inline constexpr Metric kInflightRequests{"swiglu_inflight_requests", MetricType::Gauge,
                                          "Requests in batches that the device has not completed."};
inline constexpr Metric kMemoryBudget{"swiglu_memory_budget_bytes", MetricType::Gauge,
                                      "Memory that requests can make the server hold."};
inline constexpr Metric kMemoryUsed{"swiglu_memory_used_bytes",
                                    MetricType::Gauge,
                                    "Memory that requests make the server hold, by what it holds.",
                                    {"kind"}};
inline constexpr Metric kReady{"swiglu_ready", MetricType::Gauge,
                               "1 while the server is ready for requests, else 0."};
inline constexpr Metric kBuildInfo{"swiglu_build_info",
                                   MetricType::Gauge,
                                   "Always 1; the labels say which build this is.",
                                   {"version", "commit", "cuda"}};

// Devices.
inline constexpr Metric kDeviceErrors{
    "swiglu_device_errors_total",
    MetricType::Counter,
    "Errors that a device reported; after a sticky one it is lost.",
    {"device", "kind"}};
inline constexpr Metric kDeviceMemoryUsed{
    "swiglu_device_memory_used_bytes",
    MetricType::Gauge,
    "Memory in use: of a CUDA device by any process, of the CPU by "
    "this server's slabs.",
    {"device"}};

// The process, named as all Prometheus clients name them.
inline constexpr Metric kProcessCpu{"process_cpu_seconds_total", MetricType::Counter,
                                    "Total user and system CPU time spent in seconds."};
inline constexpr Metric kProcessResident{"process_resident_memory_bytes", MetricType::Gauge,
                                         "Resident memory size in bytes."};
inline constexpr Metric kProcessVirtual{"process_virtual_memory_bytes", MetricType::Gauge,
                                        "Virtual memory size in bytes."};
inline constexpr Metric kProcessOpenFds{"process_open_fds", MetricType::Gauge,
                                        "Number of open file descriptors."};
inline constexpr Metric kProcessMaxFds{"process_max_fds", MetricType::Gauge,
                                       "Maximum number of open file descriptors."};
inline constexpr Metric kProcessStartTime{"process_start_time_seconds", MetricType::Gauge,
                                          "Start time of the process since unix epoch in seconds."};

}  // namespace swiglu::server::metrics
