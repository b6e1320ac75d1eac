# SPDX-License-Identifier: Apache-2.0
#
# The points of the wire's table: what is sent at each, and what is read off.
import dataclasses
import math


@dataclasses.dataclass(frozen=True)
class Metric:
    """A number of a load's JSON, found by the keys of `path`."""
    unit: str
    path: tuple
    less_is_better: bool = False

    def read(self, result):
        """Returns the number, or None if the result has none, as that of a run in which nothing was answered."""
        for key in self.path:
            result = (result or {}).get(key)
        return None if result is None else float(result)

    def worth(self, result):
        """Returns a number that is the greater the better the result is; no number is the worst."""
        value = self.read(result)
        if value is None:
            return -math.inf
        return -value if self.less_is_better else value


RATE = Metric("requests/s", ("requests_per_s",))
P50 = Metric("ms p50", ("latency_ms", "p50"), less_is_better=True)
P99 = Metric("ms p99", ("latency_ms", "p99"), less_is_better=True)
CPU = Metric("CPU s/GB", ("server", "cpu_seconds_per_gb"), less_is_better=True)
INPUTS = Metric("GB/s in", ("gb_per_s_in",))
RSS = Metric("bytes resident", ("server", "resident_high_water_bytes"), less_is_better=True)


@dataclasses.dataclass(frozen=True)
class Point:
    """One load, by its flags, and the metrics that it gives; the first decides which echo is the best."""
    title: str
    flags: tuple
    metrics: tuple
    # The sizes that the echo has to answer; empty: it takes no part.
    echo_bytes: str
    # Flags of the client that the rival is asked with instead, which is never the slower one.
    rival_flags: tuple = ()
    # The load on the echo, where it is another one; and flags that the server needs.
    echo_flags: tuple = ()
    server_flags: tuple = ()
    # How long it runs, and how long to find the best echo; empty: as the command line of the driver says.
    length: tuple = ()
    probe_length: tuple = ()
    # A second load that runs beside the first, and the most memory that this takes.
    beside: tuple = ()
    memory_gib: float = 0


def _closed(size, in_flight):
    return (f"--request_bytes={size}", "--connections=8", f"--in_flight={in_flight}")


def _shared(kind, size, in_flight, metrics, beside=(), model="swiglu_forward_fp16"):
    """A point whose tensors lie in shared memory. The echo takes part where messages are the limit: it answers as many."""
    load = ("--connections=8" if in_flight > 8 else f"--connections={in_flight}", f"--in_flight={in_flight}")
    inputs = 3 if "backward" in model else 2
    size_name = f"{size} MiB" if size >= 1 else f"{int(size * 1024)} KiB"
    title = f"{kind} regions, {size_name} tensors, {model.split('_')[1]}, {in_flight} in flight"
    return Point(f"{title}, beside 4 MiB messages" if beside else title,
                 (f"--shared_memory={kind}", f"--request_bytes={int(size * inputs * 1024)}KiB", f"--model={model}", *load),
                 metrics, "" if INPUTS in metrics or beside else "256", echo_flags=("--request_bytes=256", *load), beside=beside,
                 server_flags=(f"--{kind}_shared_memory=on",), memory_gib=2 if size >= 16 else 0)


_ONE = ("--connections=1", "--in_flight=1")
_SMALL = ("--request_bytes=64KiB", "--connections=4", "--rate=500")
_BIG = ("--request_bytes=256MiB", "--connections=1", "--in_flight=1")

POINTS = {
    "a": Point("4 MiB in, 2 MiB out, 8 connections, 16 in flight", _closed("4MiB", 16), (RATE, CPU), "4MiB"),
    "b": Point("64 KiB in, 32 KiB out, 8 connections, 64 in flight", _closed("64KiB", 64), (RATE,), "64KiB"),
    "c": Point("1 KiB, 8 connections, 64 in flight", _closed("1KiB", 64), (RATE,), "1KiB"),
    "d": Point("64 KiB, one at a time, client library", ("--request_bytes=64KiB", "--client=library", *_ONE), (P50,),
               "64KiB", rival_flags=("--client=raw",)),
    "e": Point("64 KiB, one a second", ("--request_bytes=64KiB", "--rate=1", "--arrivals=constant", "--connections=1"),
               (P50,), "64KiB", length=("--warm_up=1500ms", "--requests=5"),
               probe_length=("--warm_up=1500ms", "--requests=3")),
    "f1": Point("1 GiB in one message", ("--request_bytes=1GiB", *_ONE), (P50, RSS), "1GiB",
                length=("--warm_up=0", "--requests=2"), probe_length=("--warm_up=0", "--requests=1"), memory_gib=12),
    "f8": Point("8 GiB tensors in chunks, client library",
                ("--request_bytes=16GiB", "--client=library", "--connections=4", "--in_flight=1"), (P50, RSS), "",
                length=("--warm_up=0", "--requests=1"), memory_gib=48),
    "g0": Point("64 KiB, 500 a second, alone", _SMALL, (P99,), "64KiB,256MiB", memory_gib=4),
    "g1": Point("64 KiB, 500 a second, beside a stream of 256 MiB", _SMALL, (P99,), "64KiB,256MiB", beside=_BIG,
                memory_gib=4),
    "r1": _shared("cuda", 64, 4, (RATE, INPUTS)),
    "r2": _shared("cuda", 64, 4, (RATE, INPUTS), model="swiglu_backward_fp16"),
    "r3": _shared("cuda", 2, 8, (RATE, INPUTS)),
    "r4": _shared("cuda", 1 / 32, 16, (RATE,)),
    "r5": _shared("cuda", 1 / 32, 64, (RATE,)),
    "r6": _shared("cuda", 2, 1, (P50,)),
    "s1": _shared("system", 2, 8, (RATE, INPUTS)),
    "s2": _shared("system", 16, 8, (RATE, INPUTS)),
    "t1": _shared("cuda", 64, 4, (RATE,), beside=_closed("4MiB", 8)),
    "t2": Point("4 MiB in, 2 MiB out, 8 in flight", _closed("4MiB", 8), (RATE,), "",
                server_flags=("--cuda_shared_memory=on",)),
    "t3": Point("4 MiB in, 2 MiB out, 8 in flight, beside cuda regions of 64 MiB", _closed("4MiB", 8), (RATE,), "",
                beside=("--shared_memory=cuda", "--request_bytes=128MiB", "--connections=4", "--in_flight=4"),
                server_flags=("--cuda_shared_memory=on",)),
}

# What the names on the command line stand for.
NAMES = {"a": ("a",), "b": ("b",), "c": ("c",), "d": ("d",), "e": ("e",), "f": ("f1", "f8"), "g": ("g0", "g1"),
         "h": ("a",), "r": ("r1", "r2", "r3", "r4", "r5", "r6"), "s": ("s1", "s2"), "t": ("r1", "t1", "t2", "t3")}
