#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
#
# Times a whole MLP on one GPU: PyTorch's and ours, by turns in one process, on the same numbers. Needs PyTorch and Triton.
"""Times a whole SwiGLU MLP in BF16 as PyTorch computes it, and by swiglu::kernels, on one GPU.

    torch_mlp.py --lib libswiglu_bench.so [--tokens 1,8,...] [--intermediate 11008,14336] [--no-backward] [--compile] [--json FILE]

All sides are replays of CUDA graphs that take about as long. They alternate, because a GPU that has reached its power limit lowers
its clock: a side that is measured first, or for less time, looks faster than it is. A figure is the median of the rounds.

    eager     silu(x Wg^T) * (x Wu^T), times Wd^T: three products, two elementwise kernels
    compile   the same by torch.compile (only with --compile)
    cublas    one product for gate and up, one Triton kernel for SwiGLU, one product for down
    backward  autograd: forward, then backward to x, or to x and the weights: six or nine products. Ours computes e and g again,
              but not y: five or eight products.
"""
import argparse
import ctypes
import json
import statistics
import sys

import torch
import torch.nn.functional as functional
import triton
import triton.language as tl

HIDDEN = 4096
BF16 = 1


@triton.jit
def _swiglu(gate_up, h, width, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = column < width
    gate = tl.load(gate_up + row * 2 * width + column, mask=inside, other=0).to(tl.float32)
    up = tl.load(gate_up + row * 2 * width + width + column, mask=inside, other=0)
    silu = (gate * tl.sigmoid(gate)).to(up.dtype)
    tl.store(h + row * width + column, silu * up, mask=inside)


class Weights:
    def __init__(self, intermediate):
        self.intermediate = intermediate
        scale = HIDDEN**-0.5
        self.gate_up = (torch.randn(2 * intermediate, HIDDEN, device="cuda") * scale).bfloat16()
        self.gate, self.up = self.gate_up[:intermediate], self.gate_up[intermediate:]
        self.down = (torch.randn(HIDDEN, intermediate, device="cuda") * intermediate**-0.5).bfloat16()
        groups = [part.view(intermediate // 8, 8, HIDDEN) for part in (self.gate, self.up)]
        self.interleaved = torch.stack(groups, 1).reshape(2 * intermediate, HIDDEN).contiguous()


class Library:
    def __init__(self, path, weights, most_tokens):
        self.lib, self.weights = ctypes.CDLL(path), weights
        self.lib.swiglu_bench_mlp_workspace_bytes.restype = ctypes.c_int64
        size = ctypes.c_int64
        self.sizes = (size(HIDDEN), size(weights.intermediate))
        self.workspace_bytes = self.lib.swiglu_bench_mlp_workspace_bytes(*self.sizes, size(most_tokens))
        self.workspace = torch.empty(self.workspace_bytes, dtype=torch.uint8, device="cuda")

    def _call(self, function, tensors, num_tokens):
        pointer = lambda tensor: ctypes.c_void_p(None if tensor is None else tensor.data_ptr())
        status = function(BF16, *self.sizes, pointer(self.weights.interleaved), pointer(self.weights.down),
                          *[pointer(t) for t in tensors], ctypes.c_int64(num_tokens), pointer(self.workspace),
                          ctypes.c_int64(self.workspace_bytes), ctypes.c_void_p(torch.cuda.current_stream().cuda_stream))
        if status != 0:
            sys.exit(f"torch_mlp.py: the library returned {status}")

    def forward(self, x, y):
        self._call(self.lib.swiglu_bench_mlp_forward, [x, y], x.shape[0])

    def backward(self, x, dy, dx, gradients):
        self._call(self.lib.swiglu_bench_mlp_backward, [x, dy, dx, *gradients], x.shape[0])


def eager(x, gate, up, down):
    return functional.linear(functional.silu(functional.linear(x, gate)) * functional.linear(x, up), down)


def fused(x, weights):
    gate_up = functional.linear(x, weights.gate_up)
    h = torch.empty(x.shape[0], weights.intermediate, device="cuda", dtype=x.dtype)
    _swiglu[(x.shape[0], triton.cdiv(weights.intermediate, 2048))](gate_up, h, weights.intermediate, BLOCK=2048, num_warps=8)
    return functional.linear(h, weights.down)


class Graph:
    """Several calls, captured: about 4 ms of work."""

    def __init__(self, call):
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):
                call()
        torch.cuda.synchronize()
        self._capture(call, 1)
        self.count = max(1, min(60, round(4000 / min(self.microseconds() for _ in range(3)))))
        self._capture(call, self.count)

    def _capture(self, call, count):
        self.count = count
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            for _ in range(count):
                call()

    def microseconds(self):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record(); self.graph.replay(); end.record()
        torch.cuda.synchronize()
        return begin.elapsed_time(end) * 1e3 / self.count


def measure(calls, rounds):
    """Returns {name: (median, least, greatest)} in microseconds."""
    graphs = {name: Graph(call) for name, call in calls.items()}
    times = {name: [] for name in calls}
    for number in range(rounds + 1):
        for name, graph in graphs.items():
            us = graph.microseconds()
            if number > 0:
                times[name].append(us)
    return {name: (statistics.median(all), min(all), max(all)) for name, all in times.items()}


def report(rows, what, weights, num_tokens, products, figures):
    ours = figures["ours"][0]
    rivals = {name: figure[0] for name, figure in figures.items() if name != "ours"}
    best = min(rivals, key=rivals.get)
    teraflops = 2 * products * num_tokens * HIDDEN * weights.intermediate / ours / 1e6
    row = dict(what=what, intermediate=weights.intermediate, tokens=num_tokens, ratio=round(rivals[best] / ours, 3), best=best,
               tflops=round(teraflops), figures={name: [round(us, 1) for us in figure] for name, figure in figures.items()})
    rows.append(row)
    shown = "  ".join(f"{name} {us:.1f} ({low:.1f} - {high:.1f})" for name, (us, low, high) in figures.items())
    print(f"I={weights.intermediate} M={num_tokens:<5} {what:14} {row['ratio']:.3f}x {best:8} {row['tflops']:4} TFLOP/s  {shown}",
          flush=True)


def check(name, ours, expected):
    error = ((ours.float() - expected.float()).norm() / expected.float().norm()).item()
    if not error < 0.01:
        sys.exit(f"torch_mlp.py: {name} differs from PyTorch's by {error}")


def measure_forward(rows, weights, library, num_tokens, compiled, rounds):
    x = torch.randn(num_tokens, HIDDEN, device="cuda").bfloat16()
    y = torch.empty_like(x)
    calls = {"ours": lambda: library.forward(x, y), "eager": lambda: eager(x, weights.gate, weights.up, weights.down),
             "cublas": lambda: fused(x, weights)}
    if compiled is not None:
        calls["compile"] = lambda: compiled(x, weights.gate, weights.up, weights.down)
    with torch.no_grad():
        figures = measure(calls, rounds)
        library.forward(x, y)
        expected = fused(x, weights)
    check("y", y, expected)
    report(rows, "forward", weights, num_tokens, 3, figures)


def measure_backward(rows, weights, library, num_tokens, with_weights, rounds):
    x = torch.randn(num_tokens, HIDDEN, device="cuda").bfloat16().requires_grad_()
    dy = torch.randn(num_tokens, HIDDEN, device="cuda").bfloat16()
    dx = torch.empty_like(dy)
    matrices = [m.detach().clone().requires_grad_(with_weights) for m in (weights.gate, weights.up, weights.down)]
    gradients = [torch.empty(m.shape, device="cuda", dtype=torch.float32) if with_weights else None for m in matrices]
    wanted = [x] + (matrices if with_weights else [])
    calls = {"ours": lambda: library.backward(x, dy, dx, gradients),
             "eager": lambda: torch.autograd.grad(eager(x, *matrices), wanted, dy)}
    figures = measure(calls, rounds)
    library.backward(x, dy, dx, gradients)
    names = ["dx", "d_gate", "d_up", "d_down"]
    for name, ours, expected in zip(names, [dx] + gradients, torch.autograd.grad(eager(x, *matrices), wanted, dy)):
        check(name, ours, expected)
    report(rows, "dx and weights" if with_weights else "dx", weights, num_tokens, 8 if with_weights else 5, figures)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lib", required=True)
    parser.add_argument("--tokens", default="1,8,16,64,128,256,512,2048,8192")
    parser.add_argument("--intermediate", default="11008,14336")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--no-backward", action="store_true")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--json")
    arguments = parser.parse_args()
    tokens = [int(n) for n in arguments.tokens.split(",")]
    torch.manual_seed(1)
    info = dict(gpu=torch.cuda.get_device_name(), torch=torch.__version__, triton=triton.__version__)
    print(info)
    rows = []
    for intermediate in (int(n) for n in arguments.intermediate.split(",")):
        weights = Weights(intermediate)
        library = Library(arguments.lib, weights, max(tokens))
        compiled = torch.compile(eager, dynamic=True) if arguments.compile else None
        for num_tokens in tokens:
            measure_forward(rows, weights, library, num_tokens, compiled, arguments.rounds)
        for num_tokens in [] if arguments.no_backward else tokens:
            for with_weights in (False, True):
                measure_backward(rows, weights, library, num_tokens, with_weights, arguments.rounds)
    if arguments.json:
        with open(arguments.json, "w") as file:
            json.dump(dict(info=info, rows=rows), file, indent=1)


if __name__ == "__main__":
    main()
