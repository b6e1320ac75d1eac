#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
#
# Times the reference arithmetic as a Triton kernel and, in turn, our kernels beside it; checks that their bits are the same.
"""Times the reference SwiGLU arithmetic as a Triton kernel, and a CUDA library beside it, in one run on one GPU.

The kernel below restates the arithmetic of unsloth/kernels/swiglu.py (Apache-2.0) with that kernel's launch shape: blocks of
1,024 elements, Triton's default of 4 warps. It is a yardstick: do not tune it. Needs PyTorch and Triton.

    triton_baseline.py [--lib libswiglu_bench.so] [--points op:dtype:n[:offset],...] [--json out.json] [--check]

With --lib, the library is measured by the same harness, alternating with Triton. It must export, with C linkage,
    int swiglu_bench_forward (int dtype, const void* e, const void* g, void* h, int64_t n, void* stream);
    int swiglu_bench_backward(int dtype, void* dw, void* e, void* g, int64_t n, void* stream);   // in place
dtype 0 = FP16, 1 = BF16, 2 = FP32; 0 is returned on success; the call launches on `stream` and does not synchronize.
`offset` shifts every pointer by that many elements (misalignment). --check compares the results bit for bit.

Each figure is the median over many launches between CUDA events; inputs rotate over enough buffers to pass the L2 cache.
"""
import argparse
import ctypes
import json
import statistics
import sys
import time

import torch
import triton
import triton.language as tl

BLOCK = 1024
INT32_LIMIT = 2**31 - 4096
DTYPES = {"fp16": (0, torch.float16), "bf16": (1, torch.bfloat16), "fp32": (2, torch.float32)}


@triton.jit
def _offsets(n, BLOCK: tl.constexpr, WIDE: tl.constexpr):
    start = tl.program_id(0)
    if WIDE:
        start = start.to(tl.int64)
    index = start * BLOCK + tl.arange(0, BLOCK)
    return index, index < n


@triton.jit
def _forward(e_ptr, g_ptr, h_ptr, n, BLOCK: tl.constexpr, WIDE: tl.constexpr):
    index, inside = _offsets(n, BLOCK, WIDE)
    gate = tl.load(e_ptr + index, mask=inside, other=0).to(tl.float32)
    up = tl.load(g_ptr + index, mask=inside, other=0)
    silu = (gate * tl.sigmoid(gate)).to(up.dtype)
    tl.store(h_ptr + index, silu * up, mask=inside)


@triton.jit
def _backward(dw_ptr, e_ptr, g_ptr, n, BLOCK: tl.constexpr, WIDE: tl.constexpr):
    index, inside = _offsets(n, BLOCK, WIDE)
    dw = tl.load(dw_ptr + index, mask=inside, other=0)
    gate = tl.load(e_ptr + index, mask=inside, other=0).to(tl.float32)
    up = tl.load(g_ptr + index, mask=inside, other=0)
    sig = tl.sigmoid(gate)
    silu = (sig * gate).to(dw.dtype)
    d_gate = ((dw * up).to(tl.float32) * sig * (1.0 + gate * (1.0 - sig))).to(dw.dtype)
    tl.store(dw_ptr + index, silu * up, mask=inside)
    tl.store(e_ptr + index, dw * silu, mask=inside)
    tl.store(g_ptr + index, d_gate, mask=inside)


def triton_call(op, tensors):
    n = tensors[0].numel()
    kernel = _forward if op == "forward" else _backward
    kernel[(triton.cdiv(n, BLOCK),)](*tensors, n, BLOCK=BLOCK, WIDE=n > INT32_LIMIT)


class Library:
    def __init__(self, path):
        self.lib = ctypes.CDLL(path)
        for name, pointers in (("swiglu_bench_forward", 3), ("swiglu_bench_backward", 3)):
            f = getattr(self.lib, name)
            f.restype = ctypes.c_int
            f.argtypes = [ctypes.c_int] + [ctypes.c_void_p] * pointers + [ctypes.c_int64, ctypes.c_void_p]

    def call(self, op, code, tensors):
        f = self.lib.swiglu_bench_forward if op == "forward" else self.lib.swiglu_bench_backward
        stream = torch.cuda.current_stream().cuda_stream
        status = f(code, *[t.data_ptr() for t in tensors], tensors[0].numel(), stream)
        if status != 0:
            sys.exit(f"{op}: the library returned {status}")


def median_us(call, sets, launches):
    starts = [torch.cuda.Event(enable_timing=True) for _ in range(launches)]
    ends = [torch.cuda.Event(enable_timing=True) for _ in range(launches)]
    for i in range(10):
        call(sets[i % len(sets)])
    torch.cuda.synchronize()
    for i in range(launches):
        starts[i].record()
        call(sets[i % len(sets)])
        ends[i].record()
    torch.cuda.synchronize()
    return statistics.median(s.elapsed_time(e) * 1e3 for s, e in zip(starts, ends))


def graph_us(call, sets, launches=200):
    """Time of one launch inside a replayed CUDA graph: the device's share alone, for small n."""
    graph = torch.cuda.CUDAGraph()
    call(sets[0])
    torch.cuda.synchronize()
    with torch.cuda.graph(graph):
        for i in range(launches):
            call(sets[i % len(sets)])
    graph.replay()
    times = []
    for _ in range(9):
        a, b = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        a.record(); graph.replay(); b.record(); torch.cuda.synchronize()
        times.append(a.elapsed_time(b) * 1e3 / launches)
    return statistics.median(times)


def host_us(call, one, launches=3000):
    for _ in range(50):
        call(one)
    torch.cuda.synchronize()
    t = time.perf_counter()
    for _ in range(launches):
        call(one)
    spent = time.perf_counter() - t
    torch.cuda.synchronize()
    return spent / launches * 1e6


def make(op, dtype, n, offset):
    tensors = [torch.randn(n + offset, device="cuda", dtype=torch.float32).to(dtype)[offset:] if n < 2**28 else
               torch.empty(n + offset, device="cuda", dtype=dtype)[offset:] for _ in range(3)]
    if n >= 2**28:
        for t in tensors:
            for lo in range(0, n, 2**27):
                t[lo:lo + 2**27].normal_()
    return tensors


def same_bits(a, b):
    bits = {2: torch.int16, 4: torch.int32}[a.element_size()]
    differs = (a.view(bits) != b.view(bits)) & ~(torch.isnan(a) & torch.isnan(b))
    return int(differs.sum())


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--lib"); p.add_argument("--points"); p.add_argument("--json"); p.add_argument("--check", action="store_true")
    a = p.parse_args()
    lib = Library(a.lib) if a.lib else None
    if a.points:
        points = [(x.split(":") + ["0"])[:4] for x in a.points.split(",")]
    else:
        sizes = [2**k for k in range(10, 30, 2)] + [22544384, 22544381]
        points = [(op, d, n, 0) for op in ("forward", "backward") for d in DTYPES for n in sizes]
    l2 = torch.cuda.get_device_properties(0).L2_cache_size
    big = torch.empty(2**30, dtype=torch.uint8, device="cuda"); other = torch.empty_like(big)
    copy_us = median_us(lambda s: other.copy_(big), [None], 50)
    copy_gbs = 2 * big.numel() / copy_us / 1e3
    del big, other
    info = dict(gpu=torch.cuda.get_device_name(), torch=torch.__version__, triton=triton.__version__, copy_gbs=round(copy_gbs))
    print(info)
    rows = []
    for op, name, n, offset in points:
        n, offset = int(n), int(offset)
        code, dtype = DTYPES[name]
        bytes_moved = (3 if op == "forward" else 6) * n * torch.empty(0, dtype=dtype).element_size()
        count = max(1, min(64, 3 * l2 // max(1, bytes_moved // (1 if op == "forward" else 2)) + 1))
        sets = [make(op, dtype, n, offset) for _ in range(count)]
        launches = 400 if n < 2**24 else 120 if n < 2**28 else 40
        row = dict(op=op, dtype=name, n=n, offset=offset)
        run_triton = lambda s: triton_call(op, s)
        if a.check and lib:
            mine, theirs = make(op, dtype, n, offset), None
            theirs = [t.clone() for t in mine]
            if offset:
                theirs = [torch.empty(n + offset, device="cuda", dtype=dtype)[offset:].copy_(t) for t in mine]
            triton_call(op, theirs); lib.call(op, code, mine)
            row["differing"] = sum(same_bits(x, y) for x, y in zip(mine, theirs))
        first = median_us(run_triton, sets, launches)
        if lib:
            run_lib = lambda s: lib.call(op, code, s)
            ours = [median_us(run_lib, sets, launches)]
            second = median_us(run_triton, sets, launches)
            ours.append(median_us(run_lib, sets, launches))
            row.update(triton_us=round((first + second) / 2, 2), lib_us=round(sum(ours) / 2, 2))
            row["speedup"] = round(row["triton_us"] / row["lib_us"], 3)
            row["lib_of_copy"] = round(bytes_moved / row["lib_us"] / 1e3 / copy_gbs, 3)
            if n < 2**24:
                row.update(triton_graph_us=round(graph_us(run_triton, sets), 2), lib_graph_us=round(graph_us(run_lib, sets), 2))
        else:
            row["triton_us"] = round(first, 2)
        row["triton_of_copy"] = round(bytes_moved / row["triton_us"] / 1e3 / copy_gbs, 3)
        rows.append(row); print(row, flush=True)
        del sets
        torch.cuda.empty_cache()
    small = make("forward", torch.bfloat16, 4096, 0)
    info["triton_host_us"] = round(host_us(lambda s: triton_call("forward", s), small), 2)
    if lib:
        info["lib_host_us"] = round(host_us(lambda s: lib.call("forward", 1, s), small), 2)
    print(info)
    if a.json:
        json.dump(dict(info=info, rows=rows), open(a.json, "w"), indent=1)


if __name__ == "__main__":
    main()
