#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
#
# Draws the roofline of docs/performance.md from the JSON that triton_baseline.py writes: left, where the kernels stand under
# the memory's roof; right, the share of a large copy's bandwidth that they reach, by size. Needs matplotlib.
#
#   plot_roofline.py OUT.png RESULTS.json...
import json
import sys

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402  (the backend comes first)

# Floating-point operations per element: forward negates and scales, exponentiates, adds, divides, multiplies twice; backward
# also takes dg, df, 1 - se, a fused multiply-add and two products.
FLOPS = {"forward": 6, "backward": 13}
TENSORS = {"forward": 3, "backward": 6}
BYTES = {"fp16": 2, "bf16": 2, "fp32": 4}
# FP32 outside the tensor cores, H100 SXM, the vendor's data sheet.
PEAK_TFLOPS = 67
LARGE = 2**28


def load(paths):
    """Returns the bandwidth of a large copy in GB/s, the GPU and all rows of the files."""
    runs = [json.load(open(path, encoding="utf-8")) for path in paths]
    return runs[0]["info"]["copy_gbs"], runs[0]["info"]["gpu"], [row for run in runs for row in run["rows"]]


def draw_roof(axes, copy_gbs, rows):
    """The roof, and each kernel at 2^28 elements."""
    intensities = [2**(k / 4) for k in range(-8, 25)]
    roof = [min(PEAK_TFLOPS, copy_gbs * i / 1e3) for i in intensities]
    axes.loglog(intensities, roof, color="black", label=f"roof: copy {copy_gbs} GB/s, FP32 {PEAK_TFLOPS} TFLOP/s")
    for row in rows:
        if row["n"] != LARGE or row["offset"]:
            continue
        op, dtype = row["op"], row["dtype"]
        intensity = FLOPS[op] / (TENSORS[op] * BYTES[dtype])
        for name, marker in (("lib_us", "o"), ("triton_us", "x")):
            axes.plot(intensity, FLOPS[op] * LARGE / row[name] / 1e6, marker, color=COLORS[op, dtype],
                      label=f"{op} {dtype}" if name == "lib_us" else None)
    axes.set_xlabel("floating-point operations per byte")
    axes.set_ylabel("TFLOP/s")
    axes.set_title("2^28 elements: ours (o) and Triton (x)")
    axes.legend(fontsize=7)


def shows_the_device(n):
    """Whether the time at n is the kernel's: the examples of odd size are host-bound in a harness that is Python."""
    return n & (n - 1) == 0


def draw_shares(axes, copy_gbs, rows):
    """Bandwidth over that of a copy, by size; inside a CUDA graph where there is such a time."""
    for (op, dtype), color in COLORS.items():
        for name, style in (("lib", "-"), ("triton", ":")):
            points = sorted((row["n"], row.get(f"{name}_graph_us", row[f"{name}_us"])) for row in rows
                            if (row["op"], row["dtype"], row["offset"]) == (op, dtype, 0) and shows_the_device(row["n"]))
            shares = [TENSORS[op] * BYTES[dtype] * n / us / 1e3 / copy_gbs for n, us in points]
            axes.semilogx([n for n, _ in points], shares, style, color=color, linewidth=1)
    axes.set_xlabel("elements of each tensor")
    axes.set_ylabel("bandwidth over that of a large copy")
    axes.set_title("ours (line) and Triton (dotted)")
    axes.grid(alpha=0.3)


COLORS = {(op, dtype): f"C{i}" for i, (op, dtype) in
          enumerate((op, dtype) for op in ("forward", "backward") for dtype in ("fp16", "bf16", "fp32"))}


def main():
    copy_gbs, gpu, rows = load(sys.argv[2:])
    figure, (left, right) = plt.subplots(1, 2, figsize=(12, 4.5))
    draw_roof(left, copy_gbs, rows)
    draw_shares(right, copy_gbs, rows)
    figure.suptitle(gpu)
    figure.tight_layout()
    figure.savefig(sys.argv[1], dpi=110)


if __name__ == "__main__":
    main()
