#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
#
# Draws results of swiglu-bench as a PNG. From files of --histogram: latency over percentile, a line for each file. From files of
# --sweep --json: rate and latencies over the size of requests, lines for each file. Needs matplotlib (plot_requirements.txt).
#
#   plot_bench.py OUT.png FILE...
import json
import pathlib
import sys

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402  (the backend comes first)


def percentiles(text):
    """The table of a histogram: 1/(1-percentile) and the value in ms, without the last row, whose percentile is 100."""
    rows = [line.split() for line in text.splitlines() if line and not line.startswith("#")]
    return [(float(row[3]), float(row[0])) for row in rows[1:] if len(row) == 4]


def draw_histograms(texts):
    """Latency over percentile. Each further nine of the percentile takes the same width."""
    figure, axes = plt.subplots(figsize=(9, 5))
    largest = 10
    for name, text in texts.items():
        points = percentiles(text)
        if not points:
            sys.exit(f"plot_bench.py: {name} has no latencies")
        axes.plot([x for x, _ in points], [y for _, y in points], label=name)
        largest = max(largest, points[-1][0])
    axes.set_xscale("log")
    ticks = [10**k for k in range(len(str(int(largest))))]
    axes.set_xticks(ticks, [f"{100 - 100 / tick:.10g}%" for tick in ticks])
    axes.set_xlabel("percentile")
    axes.set_ylabel("latency in ms")
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.legend()
    return figure


def draw_sweeps(results):
    """Rate and latencies over the size of requests."""
    figure, (rates, latencies) = plt.subplots(1, 2, figsize=(12, 5))
    for k, (name, result) in enumerate(results.items()):
        loads = [load for load in result["sweep"] if load["requests"] > 0]
        sizes = [load["sizes"][0]["request_bytes"] for load in loads]
        rates.loglog(sizes, [load["requests_per_s"] for load in loads], "o-", color=f"C{k}", label=name)
        for percentile, style in (("p50", "o-"), ("p99", "o:")):
            latencies.loglog(sizes, [load["latency_ms"][percentile] for load in loads], style, color=f"C{k}",
                             label=f"{name} {percentile}")
    rates.set_ylabel("requests per second")
    latencies.set_ylabel("latency in ms")
    for axes in (rates, latencies):
        axes.set_xscale("log", base=2)
        axes.set_xlabel("bytes of a request")
        axes.grid(alpha=0.3)
        axes.legend()
    return figure


def main():
    if len(sys.argv) < 3:
        sys.exit("usage: plot_bench.py OUT.png FILE...")
    texts = {pathlib.Path(path).stem: pathlib.Path(path).read_text(encoding="utf-8") for path in sys.argv[2:]}
    if all(text.startswith("{") for text in texts.values()):
        figure = draw_sweeps({name: json.loads(text) for name, text in texts.items()})
    else:
        figure = draw_histograms(texts)
    figure.tight_layout()
    figure.savefig(sys.argv[1], dpi=110)


if __name__ == "__main__":
    main()
