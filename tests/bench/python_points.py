#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
#
# Measures the Python client beside the stock tritonclient, by turns in one process, on one running server. Needs both packages, and for
# --torch PyTorch with a GPU.
"""Compares swiglu-client with tritonclient[grpc] on a server that runs.

    python_points.py --server HOST:PORT --bench build/ci/bin/swiglu-bench [--rounds 5] [--seconds 1] [--torch] [--json FILE]

Each point is a rate of calls of swiglu_forward_fp32, in calls per second: the median of the rounds, the least and the greatest. A size
is that of both inputs. Each call gets a new result.

    1, 16        calls that block, from one thread, and from 16
    wait         16 threads that call usleep() instead, for as long as a call of 16 threads of the C++ client takes
    many         forward_many of 64 calls
    asyncio      gather() of 64 calls of forward_async, or of tritonclient.grpc.aio
    torch        --torch: tensors of 64 MiB on a GPU, from one thread and from 4, each into a result of its own, beside swiglu-bench
                 with CUDA regions. The server needs --cuda_shared_memory=on
"""
import argparse
import asyncio
import ctypes
import json
import statistics
import subprocess
import threading
import time

import numpy
import swiglu

MODEL = "swiglu_forward_fp32"
SIZES = {"1KiB": 1 << 10, "64KiB": 64 << 10, "4MiB": 4 << 20}
NUM_THREADS = 16
NUM_CALLS = 64
TORCH_BYTES = 64 << 20
PR_SET_TIMERSLACK = 29

libc = ctypes.CDLL(None)


def rate(call, seconds, calls_each=1):
    """Calls one function for a while."""
    call()
    count, begin = 0, time.perf_counter()
    while time.perf_counter() - begin < seconds:
        call()
        count += calls_each
    return count / (time.perf_counter() - begin)


def rate_of_threads(make_call, seconds, num_threads=NUM_THREADS):
    """The same on several threads, each of which calls a function of its own."""
    counts = [0] * num_threads
    barrier = threading.Barrier(num_threads + 1)
    stop = threading.Event()

    def run(number):
        call = make_call()
        call()
        barrier.wait()
        count = 0
        while not stop.is_set():
            call()
            count += 1
        counts[number] = count

    threads = [threading.Thread(target=run, args=(number,)) for number in range(num_threads)]
    for thread in threads:
        thread.start()
    barrier.wait()
    begin = time.perf_counter()
    time.sleep(seconds)
    stop.set()
    for thread in threads:
        thread.join()
    return sum(counts) / (time.perf_counter() - begin)


def rate_of_tasks(gather, seconds):
    """The rate of a coroutine that makes 64 calls, in a loop of its own."""

    async def run():
        await gather()
        count, begin = 0, time.perf_counter()
        while time.perf_counter() - begin < seconds:
            await gather()
            count += NUM_CALLS
        return count / (time.perf_counter() - begin)

    return asyncio.run(run())


class Ours:
    """The Python client of this project."""

    def __init__(self, server):
        self.client = swiglu.Client(server)

    def call(self, e, g):
        """A function that makes one call."""
        return lambda: self.client.forward(e, g)

    def call_many(self, e, g):
        """A function that makes 64."""
        calls = [(e, g)] * NUM_CALLS
        return lambda: self.client.forward_many(calls)

    async def gather(self, e, g):
        """64 calls that do not block."""
        await asyncio.gather(*(self.client.forward_async(e, g) for _ in range(NUM_CALLS)))


class Stock:
    """tritonclient, as its examples use it. Each thread has a client of its own."""

    def __init__(self, server):
        import tritonclient.grpc  # pylint: disable=import-outside-toplevel
        import tritonclient.grpc.aio  # pylint: disable=import-outside-toplevel
        self._grpc = tritonclient.grpc
        self._aio = tritonclient.grpc.aio
        self._server = server

    def _inputs(self, e, g):
        inputs = []
        for name, array in (("e", e), ("g", g)):
            inputs.append(self._grpc.InferInput(name, array.shape, "FP32"))
            inputs[-1].set_data_from_numpy(array)
        return inputs

    def call(self, e, g):
        """A function that makes one call."""
        client = self._grpc.InferenceServerClient(self._server)
        return lambda: client.infer(MODEL, self._inputs(e, g)).as_numpy("h")

    def tasks_rate(self, e, g, seconds):
        """The rate of 64 calls that do not block."""
        clients = []

        async def gather():
            if not clients:
                clients.append(self._aio.InferenceServerClient(self._server))
            results = await asyncio.gather(*(clients[0].infer(MODEL, self._inputs(e, g)) for _ in range(NUM_CALLS)))
            for result in results:
                result.as_numpy("h")

        return rate_of_tasks(gather, seconds)


def bench(options, *more):
    """What swiglu-bench measures with the C++ client."""
    command = [options.bench, f"--server={options.server}", "--client=library", f"--model={MODEL}", "--json", "--warm_up=300ms",
               f"--duration={options.seconds}s", *more]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def wait_rate(options):
    """The rate of 16 threads that only wait as long as calls of 16 threads of the C++ client take."""
    found = bench(options, "--request_bytes=1KiB", f"--in_flight={NUM_THREADS}")
    wait_us = round(NUM_THREADS / found["requests_per_s"] * 1e6)

    def make_call():
        libc.prctl(PR_SET_TIMERSLACK, 1, 0, 0, 0)
        return lambda: libc.usleep(wait_us)

    return rate_of_threads(make_call, options.seconds)


def torch_points(options):
    """The points of tensors on a GPU, by name."""
    import torch  # pylint: disable=import-outside-toplevel
    found = {}
    e, g = torch.randn(2, TORCH_BYTES // 4, device="cuda")
    for number in (1, 4):
        client = swiglu.Client(options.server, num_connections=number)
        torch.testing.assert_close(client.forward(e, g), torch.nn.functional.silu(e) * g)

        def make_call(client=client):
            h = torch.empty_like(e)
            return lambda: client.forward(e, g, out=h)

        def threads(number=number, make_call=make_call):
            return rate_of_threads(make_call, options.seconds, number)

        def by_bench(number=number):
            return bench(options, "--shared_memory=cuda", f"--request_bytes={2 * TORCH_BYTES}", f"--in_flight={number}",
                         f"--connections={number}")["requests_per_s"]

        found[f"torch, {number}"] = threads
        found[f"bench, {number}"] = by_bench
    return found


def points(options):
    """What gives the rate of each point, by name."""
    if options.torch:
        return torch_points(options)
    ours, stock = Ours(options.server), Stock(options.server)
    found = {}
    for name, size in SIZES.items():
        e, g = numpy.random.default_rng(1).normal(size=(2, size // 8)).astype("float32")
        for side, who in (("ours", ours), ("stock", stock)):
            found[f"{name}, 1, {side}"] = lambda call=who.call(e, g): rate(call, options.seconds)
            found[f"{name}, 16, {side}"] = lambda who=who, e=e, g=g: rate_of_threads(lambda: who.call(e, g), options.seconds)
    e, g = numpy.random.default_rng(1).normal(size=(2, SIZES["1KiB"] // 8)).astype("float32")
    found["1KiB, 16, wait"] = lambda: wait_rate(options)
    found["1KiB, many, ours"] = lambda: rate(ours.call_many(e, g), options.seconds, NUM_CALLS)
    found["1KiB, asyncio, ours"] = lambda: rate_of_tasks(lambda: ours.gather(e, g), options.seconds)
    found["1KiB, asyncio, stock"] = lambda: stock.tasks_rate(e, g, options.seconds)
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--server", required=True)
    parser.add_argument("--bench", required=True)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1)
    parser.add_argument("--torch", action="store_true")
    parser.add_argument("--json")
    options = parser.parse_args()
    swiglu.tune_process()
    measures = points(options)
    rates = {name: [] for name in measures}
    for _ in range(options.rounds):
        for name, measure in measures.items():
            rates[name].append(measure())
    for name, values in rates.items():
        print(f"{name:24} {statistics.median(values):12,.0f} /s   ({min(values):,.0f} - {max(values):,.0f})")
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump(rates, file, indent=1)


if __name__ == "__main__":
    main()
