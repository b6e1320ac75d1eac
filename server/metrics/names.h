// SPDX-License-Identifier: Apache-2.0
//
// Every metric of the server: name, help, type, label names and values, and buckets. The page shows
// no other metric, and no other file spells a metric's name. Renaming a metric affects every user.
// tests/metrics/golden_metrics.txt records all metrics.
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
  // Label names. Label values are given in the same order. nullptr after the last name.
  std::array<const char*, 3> labels{};
  // Upper bounds of a histogram's buckets, ascending, without +Inf.
  std::span<const double> buckets{};
};

// The value of the label `model` for unknown models, and of the label `device` for the CPU.
inline constexpr char kUnknownModel[] = "unknown";
inline constexpr char kCpuDeviceLabel[] = "cpu";

// Values of the label `code`: gRPC's code names, by absl::StatusCode, which has the same numbers.
inline constexpr int kNumCodes = 17;

// Values of the label `phase`.
enum class Phase { kReceive, kQueue, kCopyIn, kCompute, kCopyOut, kSend };
inline constexpr std::array<const char*, 6> kPhases = {"receive", "queue",    "copy_in",
                                                       "compute", "copy_out", "send"};

// Values of the label `direction`.
enum class Direction { kIn, kOut };
inline constexpr std::array<const char*, 2> kDirections = {"in", "out"};

// Values of the label `path`, indexed by Path. Values of `reason` for rejected requests, indexed by
// Rejection. Values of `kind` for device errors, indexed by DeviceError.
inline constexpr std::array<const char*, 4> kPaths = {"cpu", "mapped", "staged", "region"};
inline constexpr std::array<const char*, 9> kReasons = {"queue_full", "budget",    "too_large",
                                                        "deadline",   "cancelled", "draining",
                                                        "invalid",    "region",    "loading"};
inline constexpr std::array<const char*, 3> kDeviceErrorKinds = {"sticky", "out_of_memory",
                                                                 "other"};

// Values of `reason` for throttled clocks, and of `kind` for ECC errors.
inline constexpr std::array<const char*, 3> kThrottleReasons = {"thermal", "power", "hardware"};
inline constexpr std::array<const char*, 2> kEccErrorKinds = {"corrected", "uncorrected"};

// Values of `reason` for ended connections, indexed by EndReason.
inline constexpr std::array<const char*, 2> kEndReasons = {"resets", "frames"};

// Values of the label `memory`, indexed by RegionKind. Values of `reason` for refused regions,
// indexed by RegionFault.
inline constexpr std::array<const char*, 2> kRegionMemories = {"system", "cuda"};
inline constexpr std::array<const char*, 12> kRegionFaults = {
    "disabled", "name",   "name_in_use", "too_many", "too_large", "pinned_limit",
    "size",     "offset", "key",         "handle",   "device",    "no_memory"};

// Values of `result` for loads of weights, indexed by LoadResult.
inline constexpr std::array<const char*, 3> kLoadResults = {"success", "failure", "cancelled"};

// Values of `state` for slab pools.
inline constexpr std::array<const char*, 2> kSlabStates = {"used", "free"};

// Values of `kind` for used memory, indexed by MemoryKind. `region` is for system regions, which
// the budget does not cover.
inline constexpr std::array<const char*, 4> kMemoryKinds = {"receive", "staging", "response",
                                                            "region"};

// 10 us to 10 s, three buckets per decade.
inline constexpr std::array<double, 19> kDurationBuckets = {
    10e-6, 20e-6, 50e-6, 100e-6, 200e-6, 500e-6, 1e-3, 2e-3, 5e-3, 10e-3,
    20e-3, 50e-3, 0.1,   0.2,    0.5,    1,      2,    5,    10};
inline constexpr std::array<double, 9> kBatchRequestBuckets = {1, 2, 4, 8, 16, 32, 64, 128, 256};
// 256 to 2^30. Each bound is four times the bound before it.
inline constexpr std::array<double, 12> kBatchElementBuckets = {1 << 8,  1 << 10, 1 << 12, 1 << 14,
                                                                1 << 16, 1 << 18, 1 << 20, 1 << 22,
                                                                1 << 24, 1 << 26, 1 << 28, 1 << 30};

// Powers of two up to the highest --mlp_max_batch_tokens.
inline constexpr std::array<double, 17> kBatchTokenBuckets = {
    1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768, 65536};

// Metrics of requests.
inline constexpr Metric kRequests{
    "swiglu_requests_total",
    MetricType::Counter,
    "Finished ModelInfer calls and stream messages, by how they ended.",
    {"model", "code"}};
// The time starts when the call's headers arrive or, in a stream, when the whole message has
// arrived.
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
inline constexpr Metric kRegionBytes{
    "swiglu_region_bytes_total",
    MetricType::Counter,
    "Bytes of tensors that served requests read from (in) and wrote to (out) regions.",
    {"memory", "direction"}};
inline constexpr Metric kElements{
    "swiglu_elements_total",
    MetricType::Counter,
    "Elements of served requests, counted once for each tensor shape.",
    {"model"}};
inline constexpr Metric kRejected{"swiglu_rejected_total",
                                  MetricType::Counter,
                                  "Requests that were refused or dropped, by reason.",
                                  {"reason"}};
inline constexpr Metric kRetryPushbacks{
    "swiglu_retry_pushbacks_total", MetricType::Counter,
    "Inference calls that ended with the advice when to try again (grpc-retry-pushback-ms)."};

// Metrics of batches.
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

// State that is sampled when the page is read.
inline constexpr Metric kQueuedRequests{"swiglu_queued_requests", MetricType::Gauge,
                                        "Accepted requests that are in no batch yet."};
inline constexpr Metric kInflightRequests{"swiglu_inflight_requests", MetricType::Gauge,
                                          "Requests in batches that the device has not completed."};
inline constexpr Metric kQueueLimit{"swiglu_queue_limit_requests", MetricType::Gauge,
                                    "The most accepted requests that may be in no batch yet."};
inline constexpr Metric kMemoryBudget{"swiglu_memory_budget_bytes", MetricType::Gauge,
                                      "Memory that requests can make the server hold."};
inline constexpr Metric kMemoryUsed{"swiglu_memory_used_bytes",
                                    MetricType::Gauge,
                                    "Memory by what it holds or is reserved for; the budget is "
                                    "charged for all of it but system regions.",
                                    {"kind"}};
inline constexpr Metric kRegions{
    "swiglu_regions", MetricType::Gauge, "Regions that are registered.", {"memory"}};
inline constexpr Metric kRegionSize{
    "swiglu_region_size_bytes",
    MetricType::Gauge,
    "Memory of regions, with those of unregistered regions that are still in use.",
    {"memory"}};
inline constexpr Metric kRegionLimit{"swiglu_region_limit_bytes", MetricType::Gauge,
                                     "The most memory of all system regions together."};
inline constexpr Metric kRefusedRegions{"swiglu_refused_regions_total",
                                        MetricType::Counter,
                                        "Regions that clients could not register, by reason.",
                                        {"reason"}};
inline constexpr Metric kSlabPool{
    "swiglu_slab_pool_bytes",
    MetricType::Gauge,
    "Memory of the slab pool: of slabs in use, and of those kept for the next requests.",
    {"pool", "state"}};
inline constexpr Metric kReady{"swiglu_ready", MetricType::Gauge,
                               "1 while the server is ready for requests, else 0."};
inline constexpr Metric kConnections{"swiglu_connections", MetricType::Gauge,
                                     "gRPC connections that are open."};
inline constexpr Metric kConnectionLimit{"swiglu_connection_limit", MetricType::Gauge,
                                         "The most gRPC connections that may be open."};
inline constexpr Metric kRefusedConnections{"swiglu_refused_connections_total", MetricType::Counter,
                                            "gRPC connections closed because there were too many."};
inline constexpr Metric kEndedConnections{
    "swiglu_ended_connections_total",
    MetricType::Counter,
    "gRPC connections that were ended for what they sent: too many calls begun and reset, or too "
    "many bytes that belong to no message.",
    {"reason"}};
inline constexpr Metric kLive{"swiglu_live", MetricType::Gauge,
                              "0 once a device has failed for good, else 1."};
inline constexpr Metric kDraining{"swiglu_draining", MetricType::Gauge,
                                  "1 once new requests are refused because the server ends, else "
                                  "0."};
inline constexpr Metric kDroppedLogLines{
    "swiglu_dropped_log_lines_total", MetricType::Counter,
    "Lines of the log that were dropped because nobody took them, or there was no memory."};
inline constexpr Metric kBuildInfo{"swiglu_build_info",
                                   MetricType::Gauge,
                                   "Always 1; the labels say which build this is.",
                                   {"version", "commit", "cuda"}};

// Metrics of devices.
inline constexpr Metric kDeviceBytes{
    "swiglu_device_bytes_total",
    MetricType::Counter,
    "Bytes of tensors that batches read and wrote on the device, those that failed left out.",
    {"device"}};
inline constexpr Metric kDeviceErrors{
    "swiglu_device_errors_total",
    MetricType::Counter,
    "Errors that a device reported; after a sticky one it is lost.",
    {"device", "kind"}};
inline constexpr Metric kDevicePoisoned{"swiglu_device_poisoned",
                                        MetricType::Gauge,
                                        "1 once the device has reported a sticky error, after "
                                        "which it is lost to this process, else 0.",
                                        {"device"}};
inline constexpr Metric kDeviceMemoryUsed{
    "swiglu_device_memory_used_bytes",
    MetricType::Gauge,
    "Memory in use: of a CUDA device by any process, of the CPU by "
    "this server's slabs.",
    {"device"}};

// MLPs. A server without MLPs has none of these series.
inline constexpr Metric kMlpTokens{"swiglu_mlp_tokens_total",
                                   MetricType::Counter,
                                   "Tokens of served requests for an MLP.",
                                   {"model", "op"}};
inline constexpr Metric kMlpBatchTokens{"swiglu_mlp_batch_tokens",
                                        MetricType::Histogram,
                                        "Tokens in each executed batch of an MLP.",
                                        {"model", "op"},
                                        kBatchTokenBuckets};
inline constexpr Metric kMlpWeightBytes{
    "swiglu_mlp_weight_bytes",
    MetricType::Gauge,
    "Memory of the current weights of an MLP, by the device that has them.",
    {"model", "device"}};
inline constexpr Metric kMlpLoading{"swiglu_mlp_loading",
                                    MetricType::Gauge,
                                    "1 while the weights of an MLP are being loaded, else 0.",
                                    {"model"}};
inline constexpr Metric kMlpLoadedBytes{
    "swiglu_mlp_loaded_bytes",
    MetricType::Gauge,
    "Bytes of weights that the load under way has read, or that the last one had read.",
    {"model"}};
inline constexpr Metric kMlpLoadSize{"swiglu_mlp_load_size_bytes",
                                     MetricType::Gauge,
                                     "Bytes of weights that a load reads in all.",
                                     {"model"}};
inline constexpr Metric kMlpLoads{"swiglu_mlp_loads_total",
                                  MetricType::Counter,
                                  "Loads of the weights of an MLP that have ended, by result.",
                                  {"model", "result"}};
inline constexpr Metric kMlpLastLoad{
    "swiglu_mlp_last_load_timestamp_seconds",
    MetricType::Gauge,
    "When the last successful load of the weights of an MLP ended, since unix epoch; 0 before it.",
    {"model"}};
inline constexpr Metric kMlpLastLoadDuration{
    "swiglu_mlp_last_load_duration_seconds",
    MetricType::Gauge,
    "How long the last successful load of the weights of an MLP took.",
    {"model"}};

// GPUs as the driver sees them. A figure that the driver does not report has no series.
inline constexpr Metric kGpuUtilization{
    "swiglu_gpu_utilization_ratio",
    MetricType::Gauge,
    "Share of the last moments in which at least one kernel ran, 0 to 1.",
    {"device"}};
inline constexpr Metric kGpuMemoryUsed{"swiglu_gpu_memory_used_bytes",
                                       MetricType::Gauge,
                                       "Memory of the GPU in use by any process or the driver.",
                                       {"device"}};
inline constexpr Metric kGpuMemoryTotal{
    "swiglu_gpu_memory_total_bytes", MetricType::Gauge, "Memory of the GPU.", {"device"}};
inline constexpr Metric kGpuPower{
    "swiglu_gpu_power_watts", MetricType::Gauge, "Power that the GPU draws.", {"device"}};
inline constexpr Metric kGpuPowerLimit{
    "swiglu_gpu_power_limit_watts", MetricType::Gauge, "Power that the GPU may draw.", {"device"}};
inline constexpr Metric kGpuEnergy{"swiglu_gpu_energy_joules_total",
                                   MetricType::Counter,
                                   "Energy that the GPU has taken since its driver was loaded.",
                                   {"device"}};
inline constexpr Metric kGpuTemperature{
    "swiglu_gpu_temperature_celsius", MetricType::Gauge, "Temperature of the GPU.", {"device"}};
inline constexpr Metric kGpuClockThrottled{
    "swiglu_gpu_clock_throttled",
    MetricType::Gauge,
    "1 while the GPU runs slower for that reason, else 0: too hot, at its power limit, or slowed "
    "down by its board.",
    {"device", "reason"}};
inline constexpr Metric kGpuEccErrors{"swiglu_gpu_ecc_errors_total",
                                      MetricType::Counter,
                                      "Memory errors of the GPU since its driver was loaded.",
                                      {"device", "kind"}};

// The same figures under the names of Triton Inference Server. perf_analyzer reads these names.
inline constexpr Metric kNvUtilization{
    "nv_gpu_utilization", MetricType::Gauge, "GPU utilization rate, 0 to 1.", {"gpu_uuid"}};
inline constexpr Metric kNvMemoryTotal{
    "nv_gpu_memory_total_bytes", MetricType::Gauge, "GPU total memory, in bytes.", {"gpu_uuid"}};
inline constexpr Metric kNvMemoryUsed{
    "nv_gpu_memory_used_bytes", MetricType::Gauge, "GPU used memory, in bytes.", {"gpu_uuid"}};
inline constexpr Metric kNvPower{
    "nv_gpu_power_usage", MetricType::Gauge, "GPU power usage, in watts.", {"gpu_uuid"}};
inline constexpr Metric kNvPowerLimit{
    "nv_gpu_power_limit", MetricType::Gauge, "GPU power limit, in watts.", {"gpu_uuid"}};
// The value only grows. It is a gauge because a counter's name must end in _total.
inline constexpr Metric kNvEnergy{"nv_energy_consumption",
                                  MetricType::Gauge,
                                  "GPU energy consumption, in joules, since its driver was loaded.",
                                  {"gpu_uuid"}};

// Metrics of the process, with the names that all Prometheus clients use.
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
