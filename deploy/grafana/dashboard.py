#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
#
# Prints the dashboard as the JSON that Grafana reads, and is the one place where it is changed:
#
#   pip install --require-hashes -r tests/monitoring/requirements.txt
#   python3 deploy/grafana/dashboard.py >deploy/grafana/dashboards/swiglu.json
#
# tests/monitoring runs every query against a real Prometheus that scrapes a real server.
from collections.abc import Sequence

from grafana_foundation_sdk.builders import dashboard as dashboards
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import dashboard as models

from panels import DATASOURCE, FULL, HALF, JOBS, REPLICAS, THIRD, Query, alert_table, figure, graph, heat_map, replicas_of, stacked

# gRPC's codes of the server's making; deploy/prometheus/rules/objectives.yml counts the same against the objective.
SERVER_CODES = 'code=~"UNKNOWN|DEADLINE_EXCEEDED|INTERNAL|UNAVAILABLE|DATA_LOSS"'

# Alerts of this service; some have no job, because nothing answers for one, and one has a pod instead.
ALERTS = 'ALERTS{alertname=~"Swiglu.+",cluster=~"($cluster)?",namespace=~"($namespace)?",job=~"($job)?"}'
FIRING = ALERTS.replace("}", ',alertstate="firing"}')

PHASES = {
    "receive": "From a request's first byte to its last.",
    "queue": "From the last byte to the start of its batch.",
    "copy_in": "Tensors on their way to the device; nothing on the CPU and where the device reads host memory.",
    "compute": "The kernel, or the CPU's arithmetic.",
    "copy_out": "Results on their way back from the device.",
    "send": "From the result to the last byte handed to gRPC.",
}


def rate(metric: str, matchers: str = "") -> str:
    """The rate of a counter's series of the chosen replicas and models."""
    return f"rate({value(metric, matchers)}[$__rate_interval])"


def value(metric: str, matchers: str = "") -> str:
    """A metric's series of the chosen replicas, and of the chosen models where it has them."""
    return f"{metric}{{{replicas_of(metric)}{',' + matchers if matchers else ''}}}"


def quantile(share: float, metric: str, by: str = "") -> str:
    """A quantile of a histogram, over all the chosen replicas or by a label."""
    labels = f"le, {by}" if by else "le"
    return f"histogram_quantile({share}, sum by ({labels}) ({rate(metric + '_bucket')}))"


def total(expression: str, by: str = "") -> str:
    """A sum over all the series, or one for each value of a label."""
    return f"sum by ({by}) ({expression})" if by else f"sum({expression})"


def mean(metric: str, by: str = "") -> str:
    """The mean of a histogram's observations."""
    return f"{total(rate(metric + '_sum'), by)} / {total(rate(metric + '_count'), by)}"


def overview() -> Sequence[Builder[models.Panel]]:
    failed = f"{total(rate('swiglu_requests_total', SERVER_CODES))} / {total(rate('swiglu_requests_total'))}"
    firing = f"sum({FIRING}) or vector(0)"
    burn = "job:swiglu_request_{}:ratio_rate{}{{" + JOBS + "}} / on () group_left () (1 - swiglu:{}_objective:ratio)"
    return [
        figure("Replicas ready", "short", "Servers that take requests.", Query(total(value("swiglu_ready")), "ready")),
        figure("Requests served and refused", "reqps", "Finished requests per second, whatever their end.",
               Query(total(rate("swiglu_requests_total")), "requests")),
        figure("Requests failed", "percentunit", "Share of requests that ended with a code of the server's making.",
               Query(failed, "failed"), warn_from=0.001, red_from=0.01),
        figure("Request time, p99", "s", "99 of 100 requests took at most this long, first byte to last byte.",
               Query(quantile(0.99, "swiglu_request_duration_seconds"), "p99")),
        figure("Memory budget used", "percentunit", "The fullest half of --memory_budget_bytes of any replica.",
               Query(f"max({value('instance:swiglu_memory_budget_used:ratio')})", "used"), warn_from=0.7, red_from=0.9),
        figure("Alerts firing", "short", "Alerts of this service, out of deploy/prometheus/rules.",
               Query(firing, "firing"), red_from=1),
        graph("Error budget burn", "short",
              "How many times faster than allowed the objectives' error budgets are being spent, over 5 minutes and one hour; "
              "1 spends them exactly.",
              [Query(burn.format(kind, window, objective), f"{objective}, {window}")
               for kind, objective in (("errors", "availability"), ("slow", "latency")) for window in ("5m", "1h")],
              span=THIRD),
        graph("Queue used", "percentunit", "Accepted requests in no batch yet, as a share of --max_queued_requests.",
              [Query(value("instance:swiglu_queue_used:ratio"), "{{instance}}")], span=THIRD, top=1),
        alert_table("Alerts", "Pending and firing alerts of this service; each name leads to its runbook.", ALERTS, span=THIRD),
    ]


def latency() -> Sequence[Builder[models.Panel]]:
    total, phase = "swiglu_request_duration_seconds", "swiglu_phase_duration_seconds"
    shares = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p99.9": 0.999}
    panels: list[Builder[models.Panel]] = [
        graph("Request time", "s", "Quantiles of the time from a request's first byte to the last byte of its answer.",
              [Query(quantile(share, total), name) for name, share in shares.items()]),
        heat_map("Request time, heat map", "s", "How many requests took how long.", value(total + "_bucket")),
        graph("Request time by model, p99", "s", "The slowest of each model's requests; `unknown` are refused ones.",
              [Query(quantile(0.99, total, "model"), "{{model}}")]),
        graph("Phases, p50", "s", "The median of each phase of served requests.",
              [Query(quantile(0.5, phase, "phase"), "{{phase}}")]),
        graph("Phases, p99", "s", "The 99th percentile of each phase of served requests.",
              [Query(quantile(0.99, phase, "phase"), "{{phase}}")]),
        stacked("Where the time goes", "s", "The mean of each phase; together, the mean time of a served request.",
                [Query(mean(phase, "phase"), "{{phase}}")]),
    ]
    for name, meaning in PHASES.items():
        panels.append(heat_map(f"Phase {name}", "s", meaning, value(phase + "_bucket", f'phase="{name}"'), height=6))
    return panels


def throughput() -> Sequence[Builder[models.Panel]]:
    held = value("swiglu_memory_used_bytes", 'kind!="region"')
    return [
        graph("Requests by model", "reqps", "Finished requests per second; `unknown` named no model of this server.",
              [Query(total(rate("swiglu_requests_total"), "model"), "{{model}}")]),
        graph("Elements by model", "short", "Elements per second of served requests, each tensor shape counted once.",
              [Query(total(rate("swiglu_elements_total"), "model"), "{{model}}")]),
        graph("Message bytes", "Bps", "Bytes per second of request messages (in) and response messages (out).",
              [Query(total(rate("swiglu_request_bytes_total"), "direction"), "{{direction}}")]),
        stacked("Memory held, against the budget", "bytes", "What requests make the servers hold, and all that they may: "
                "half of it for what is received, half for the rest.",
                [Query(total(held, "kind"), "{{kind}}"),
                 Query(total(value("swiglu_memory_budget_bytes")), "budget")], span=HALF, line="budget"),
        graph("Requests queued and in flight", "short",
              "Accepted and in no batch (queued), in batches on the device (in flight), and --max_queued_requests (limit).",
              [Query(total(value("swiglu_queued_requests")), "queued"),
               Query(total(value("swiglu_inflight_requests")), "in flight"),
               Query(total(value("swiglu_queue_limit_requests")), "limit")], span=HALF),
        graph("Registered regions", "bytes", "Shared memory that clients have registered, outside the budget; --max_pinned_bytes, the "
              "limit of system regions; and on the right the number of regions.",
              [Query(total(value("swiglu_region_size_bytes"), "memory"), "{{memory}}"),
               Query(total(value("swiglu_region_limit_bytes")), "limit"),
               Query(total(value("swiglu_regions"), "memory"), "{{memory}}, number", unit="short")], span=HALF),
        graph("Region bytes", "Bps", "Bytes per second of tensors that served requests read from regions (in) and wrote to them (out).",
              [Query(total(rate("swiglu_region_bytes_total"), "memory, direction"), "{{memory}} {{direction}}")], span=HALF),
    ]


def batching() -> Sequence[Builder[models.Panel]]:
    return [
        graph("Batches by path", "ops", "Batches per second, by the way that their bytes took to the arithmetic.",
              [Query(total(rate("swiglu_batches_total"), "path"), "{{path}}")]),
        graph("Batches by operation", "ops", "Batches per second, by operation and dtype.",
              [Query(total(rate("swiglu_batches_total"), "op, dtype"), "{{op}} {{dtype}}")]),
        graph("Requests in a batch, mean", "short", "Grows with the load: requests that wait for a lane go together.",
              [Query(mean("swiglu_batch_requests"), "requests")]),
        heat_map("Requests in a batch", "short", "How many batches had how many requests.",
                 value("swiglu_batch_requests_bucket"), span=HALF),
        heat_map("Elements in a batch", "short", "How many batches had how many elements.",
                 value("swiglu_batch_elements_bucket"), span=HALF),
    ]


def mlps() -> Sequence[Builder[models.Panel]]:
    loaded = f"{value('swiglu_mlp_loaded_bytes')} / {value('swiglu_mlp_load_size_bytes')}"
    loads = f"sum by (model, result) (increase({value('swiglu_mlp_loads_total')}[$__rate_interval]))"
    age = f"time() - ({value('swiglu_mlp_last_load_timestamp_seconds')} > 0)"
    by = "{{instance}} {{model}}"
    return [
        graph("MLP tokens", "short", "Tokens per second of served requests; each layer counts its own.",
              [Query(total(rate("swiglu_mlp_tokens_total"), "model, op"), "{{model}} {{op}}")]),
        graph("Tokens in an MLP batch, mean", "short", "Grows with the load: requests for the same layer share a pass over its weights.",
              [Query(mean("swiglu_mlp_batch_tokens", "model, op"), "{{model}} {{op}}")]),
        heat_map("Tokens in an MLP batch", "short", "How many batches had how many tokens.", value("swiglu_mlp_batch_tokens_bucket")),
        graph("MLP weights", "bytes", "Memory of the weights that new requests use.",
              [Query(value("swiglu_mlp_weight_bytes"), by + " {{device}}")]),
        graph("MLP load progress", "percentunit", "How much of the weights the load under way has read, or the last one had read.",
              [Query(loaded, by), Query(value("swiglu_mlp_loading"), f"{by} loading")], top=1),
        graph("MLP loads", "short", "Loads of weights that ended, in each interval; after one that failed the old weights stay.",
              [Query(loads, "{{model}} {{result}}")]),
        graph("Age of MLP weights", "s", "Time since the last load that succeeded.", [Query(age, by)], span=HALF),
        graph("Time of the last MLP load", "s", "How long the last load that succeeded took.",
              [Query(value("swiglu_mlp_last_load_duration_seconds"), by)], span=HALF),
    ]


def errors() -> Sequence[Builder[models.Panel]]:
    failed = total(rate("swiglu_requests_total", SERVER_CODES), "model")
    return [
        graph("Requests failed, by code", "reqps", "Requests per second that did not end with OK.",
              [Query(total(rate("swiglu_requests_total", 'code!="OK"'), "code"), "{{code}}")]),
        graph("Requests failed, share by model", "percentunit",
              "Of each model's requests, those that ended with a code of the server's making.",
              [Query(f"{failed} / {total(rate('swiglu_requests_total'), 'model')}", "{{model}}")], top=1),
        graph("Refusals by reason", "reqps", "Requests per second that were refused or dropped.",
              [Query(total(rate("swiglu_rejected_total"), "reason"), "{{reason}}")]),
        graph("Retry pushbacks", "reqps", "Refusals per second that told the caller when to come again.",
              [Query(total(rate("swiglu_retry_pushbacks_total")), "pushbacks")], span=HALF),
        graph("Regions refused", "ops", "Shared memory regions per second that clients could not register, by reason.",
              [Query(total(rate("swiglu_refused_regions_total"), "reason"), "{{reason}}")], span=HALF),
    ]


def device() -> Sequence[Builder[models.Panel]]:
    labels = "{{instance}} {{device}}"
    return [
        graph("Device throughput", "Bps", "Bytes of tensors per second that batches read and wrote on each device.",
              [Query(rate("swiglu_device_bytes_total"), labels)], span=FULL),
        graph("Device memory", "bytes", "In use on a CUDA device by any process, on the CPU by this server's slabs.",
              [Query(value("swiglu_device_memory_used_bytes"), labels)]),
        stacked("Slab pools", "bytes", "Memory that the servers keep for tensors: used by requests, and free for the next.",
                [Query(total(value("swiglu_slab_pool_bytes"), "pool, state"), "{{pool}} {{state}}")]),
        graph("Device errors", "short",
              "Errors that devices reported, in each interval; after a sticky one a device is lost.",
              [Query(f"sum by (device, kind) (increase(swiglu_device_errors_total{{{REPLICAS}}}[$__rate_interval]))",
                     "{{device}} {{kind}}")]),
        graph("Poisoned devices", "short", "1 from a sticky error until the server has ended.",
              [Query(value("swiglu_device_poisoned"), labels)], span=FULL, top=1),
    ]


def gpu() -> Sequence[Builder[models.Panel]]:
    labels = "{{instance}} {{device}}"
    return [
        graph("GPU busy", "percentunit", "Share of time in which any kernel ran; says nothing about how well it ran.",
              [Query(value("swiglu_gpu_utilization_ratio"), labels)], top=1),
        graph("GPU memory", "bytes", "In use by any process, and all there is.",
              [Query(value("swiglu_gpu_memory_used_bytes"), f"{labels} used"),
               Query(value("swiglu_gpu_memory_total_bytes"), f"{labels} total")]),
        graph("GPU power", "watt", "Drawn, its mean by the energy counter, and the limit.",
              [Query(value("swiglu_gpu_power_watts"), f"{labels} now"),
               Query(rate("swiglu_gpu_energy_joules_total"), f"{labels} mean"),
               Query(value("swiglu_gpu_power_limit_watts"), f"{labels} limit")]),
        graph("GPU temperature", "celsius", "Of the chip.", [Query(value("swiglu_gpu_temperature_celsius"), labels)]),
        graph("GPU clocks held down", "short", "1 while the driver lowers the clocks, by reason.",
              [Query(value("swiglu_gpu_clock_throttled"), labels + " {{reason}}")], top=1),
        graph("GPU memory errors", "short", "ECC errors in each interval; a corrected one did no harm.",
              [Query(f"increase(swiglu_gpu_ecc_errors_total{{{REPLICAS}}}[$__rate_interval])", labels + " {{kind}}")]),
    ]


def replicas() -> Sequence[Builder[models.Panel]]:
    by = "{{instance}}"
    return [
        graph("Requests by replica", "reqps", "Finished requests per second.",
              [Query(total(rate("swiglu_requests_total"), "instance"), by)]),
        graph("Request time by replica, p99", "s",
              "A replica far above the others has a slow device or a slow neighbour.",
              [Query(quantile(0.99, "swiglu_request_duration_seconds", "instance"), by)]),
        graph("Memory budget used by replica", "percentunit", "Of the half for messages that come in, and of the half for tensors.",
              [Query(value("instance:swiglu_memory_budget_used:ratio"), "{{instance}} {{half}}")], top=1),
        graph("Processor cores used", "short", "User and system time, per second.",
              [Query(rate("process_cpu_seconds_total"), by)]),
        graph("Process memory", "bytes", "Resident bytes: the program, its slabs and what gRPC holds.",
              [Query(value("process_resident_memory_bytes"), by)]),
        graph("File descriptors used", "percentunit", "Open ones as a share of the limit; each connection takes one.",
              [Query(f"{value('process_open_fds')} / {value('process_max_fds')}", by)], top=1),
        graph("Connections", "short", "gRPC connections that are open, and the most that may be.",
              [Query(value("swiglu_connections"), by), Query(value("swiglu_connection_limit"), f"{by} limit")], span=HALF),
        graph("Connections refused", "cps", "Closed as soon as they were accepted, because there were too many; or ended for what they sent.",
              [Query(rate("swiglu_refused_connections_total"), by),
               Query(rate("swiglu_ended_connections_total"), f"{by} ended: {{{{reason}}}}")], span=HALF),
        graph("Health", "short", "Ready for requests, alive (no device poisoned), and draining before the end.",
              [Query(value("swiglu_ready"), f"{by} ready"), Query(value("swiglu_live"), f"{by} live"),
               Query(value("swiglu_draining"), f"{by} draining")], top=1),
        graph("Time since start", "s", "Falls to zero where a server was started again.",
              [Query(f"time() - {value('process_start_time_seconds')}", by)]),
        graph("Builds", "short", "How many replicas run which build.",
              [Query(f"count by (version, commit, cuda) ({value('swiglu_build_info')})",
                     "{{version}} {{commit}} CUDA {{cuda}}")]),
    ]


ROWS = {
    "Overview": overview,
    "Latency by phase": latency,
    "Throughput against budget": throughput,
    "Batching": batching,
    "MLPs": mlps,
    "Errors": errors,
    "Device": device,
    "GPU": gpu,
    "Replicas": replicas,
}

# The choices, each among the values of a label that a metric has where the ones before are chosen. A plain Prometheus has neither
# clusters nor namespaces, and series without a label match what matches nothing.
CHOICES = {
    "cluster": "swiglu_build_info",
    "namespace": 'swiglu_build_info{cluster=~"$cluster"}',
    "job": 'swiglu_build_info{cluster=~"$cluster",namespace=~"$namespace"}',
    "instance": f"swiglu_build_info{{{JOBS}}}",
    "model": f"swiglu_requests_total{{{REPLICAS}}}",
}
MAY_HAVE_NO_VALUE = ("cluster", "namespace")


def label_variable(name: str, metric: str) -> dashboards.QueryVariable:
    """A choice among the values of a label, all of them at first."""
    return (dashboards.QueryVariable(name).label(name.capitalize()).datasource(DATASOURCE)
            .query(f"label_values({metric}, {name})")
            .refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED).sort(models.VariableSort.ALPHABETICAL_ASC)
            .multi(True).include_all(True).all_value(".*" if name in MAY_HAVE_NO_VALUE else ".+")
            .current(models.VariableOption(selected=True, text="All", value="$__all")))


def dashboard() -> models.Dashboard:
    """The whole of it: the overview, and below it the other rows, collapsed."""
    alerts = (dashboards.AnnotationQuery().name("Alerts").datasource(DATASOURCE).enable(True).icon_color("red")
              .expr(FIRING))
    board = (dashboards.Dashboard("SwiGLU server").uid("swiglu").tags(["swiglu"]).readonly().refresh("30s")
             .description("The gRPC inference server swiglu-server: load, latency, budgets, devices and failures.")
             .time("now-1h", "now").timezone("browser").tooltip(models.DashboardCursorSync.CROSSHAIR)
             .annotation(alerts)
             .with_variable(dashboards.DatasourceVariable("datasource").label("Data source").type("prometheus")))
    for name, metric in CHOICES.items():
        board.with_variable(label_variable(name, metric))
    # deploy/compose.yaml has Grafana serve the pages there.
    board.with_variable(dashboards.TextBoxVariable("runbooks").label("Runbooks at").default_value("/public/runbooks")
                        .description("Address of docs/runbooks, to which the links of panels and alerts lead."))
    for title, panels in ROWS.items():
        row = dashboards.Row(title)
        if title != "Overview":
            for panel in panels():
                row.with_panel(panel)
        board.with_row(row.collapsed(title != "Overview"))
        if title == "Overview":
            for panel in panels():
                board.with_panel(panel)
    return numbered(board.build())


def numbered(board: models.Dashboard) -> models.Dashboard:
    """Gives every panel an id, by which links find it."""
    number = 0
    for panel in board.panels or []:
        for each in [panel, *(panel.panels if isinstance(panel, models.RowPanel) else [])]:
            number += 1
            each.id_val = number
    return board


if __name__ == "__main__":
    print(JSONEncoder(sort_keys=True, indent=2).encode(dashboard()))
