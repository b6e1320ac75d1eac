#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
#
# What a second GPU is worth: one server on all devices, one on device 0 alone and the bare echo, which says what the wire
# can carry, loaded in turns on one machine; medians over rounds, the ratio of each round, and the share of the bytes that
# each device took. Then a mixed load. Prints the table, and writes JSON; ends with 77 where there are not two devices.
#
#   PYTHONPATH=tests/bench/wire tests/multi_gpu/two_gpus.py --server=bin/swiglu-server --bench=bin/swiglu-bench \
#     --client=bin/swiglu --rounds=5 --json=two_gpus.json
import argparse
import http.client
import json
import re
import subprocess
import sys

import contestants
import machine
import summary

SKIPPED = 77
# For requests of 256 MiB, pinned, beside each other.
SERVER_FLAGS = ("--device=cuda", "--memory_budget_bytes=16GiB")
POINTS = {
    "64 KiB, 64 in flight": ("--request_bytes=64KiB", "--in_flight=64"),
    "4 MiB, 16 in flight": ("--request_bytes=4MiB", "--in_flight=16"),
    "256 MiB, 4 in flight": ("--request_bytes=256MiB", "--in_flight=4"),
}
# At these points the echo is fastest with so many threads or fewer.
ECHO_THREADS = (4, 8)
ECHO_BYTES = "64KiB,4MiB,256MiB"
FORWARD = ("--model=swiglu_forward_fp16", "--connections=8")
MIXED = ("--request_bytes=64KiB*9,4MiB*1", "--in_flight=64", *FORWARD)
BESIDE = ("--request_bytes=64KiB*9,4MiB*1", "--in_flight=16", "--model=swiglu_backward_fp16", "--connections=8")


def parse_arguments():
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--server", required=True, help="the program swiglu-server")
    parser.add_argument("--bench", required=True, help="the program swiglu-bench")
    parser.add_argument("--client", required=True, help="the program swiglu")
    parser.add_argument("--server_flag", action="append", default=[], help="a flag for both servers; may be repeated")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--duration", default="2s", help="of each run")
    parser.add_argument("--warm_up", default="300ms", help="before each run")
    parser.add_argument("--json", help="the file to write")
    arguments = parser.parse_args()
    if arguments.rounds < 1:
        parser.error("--rounds takes 1 or more")
    return arguments


class GpuServer:
    """A server on some devices, loaded with swiglu-bench. As a context manager it ends with the block."""

    def __init__(self, arguments, *flags):
        self._bench = arguments.bench
        self._length = (f"--duration={arguments.duration}", f"--warm_up={arguments.warm_up}")
        self._metrics_port = contestants.free_port()
        self._process = contestants.start_server(
            arguments.server, [*SERVER_FLAGS, f"--metrics_address=127.0.0.1:{self._metrics_port}", *flags,
                               *arguments.server_flag])

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self._process.__exit__(*exception)

    @property
    def address(self):
        """Where it serves."""
        return self._process.address

    def wait_ready(self):
        """Waits until it serves."""
        contestants.wait_ready(self._bench, self._process)

    def load(self, *loads):
        """Puts loads, each given by its flags, on it at once. Returns their results, and the bytes that each device took."""
        before = self.device_bytes()
        running = [contestants.Load(self._bench, self._process, [*self._length, *flags]) for flags in loads]
        results = [load.result() for load in running]
        for result in results:
            if result["errors"]:
                raise contestants.Failure(f"not every request was served: {result['errors']}, {result['error_example']}")
        return results, {device: done - before[device] for device, done in self.device_bytes().items()}

    def device_bytes(self):
        """What each device has read and written, by its label."""
        connection = http.client.HTTPConnection("127.0.0.1", self._metrics_port, timeout=60)
        try:
            connection.request("GET", "/metrics")
            page = connection.getresponse().read().decode()
        finally:
            connection.close()
        found = re.findall(r'^swiglu_device_bytes_total\{device="(\w+)"\} (\S+)$', page, re.MULTILINE)
        return {device: float(value) for device, value in found}


class Echoes:
    """The bare echoes, each with its number of threads. As a context manager they end with the block."""

    def __init__(self, arguments):
        self._bench = arguments.bench
        self._length = (f"--duration={arguments.duration}", f"--warm_up={arguments.warm_up}")
        self._running = [contestants.start_echo(arguments.bench, ECHO_BYTES, threads) for threads in ECHO_THREADS]

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        for echo in self._running:
            echo.__exit__(*exception)

    def wait_ready(self):
        """Waits until all serve."""
        for echo in self._running:
            contestants.wait_ready(self._bench, echo)

    def load(self, flags):
        """Puts a load on one after the other. Returns the requests per second of the faster one."""
        return max(contestants.Load(self._bench, echo, [*self._length, *flags]).result()["requests_per_s"]
                   for echo in self._running)


def shares(device_bytes):
    """Each device's share of all bytes."""
    whole = sum(device_bytes.values())
    return {device: done / whole for device, done in device_bytes.items()}


def measure_point(all_devices, one_device, echoes, flags, rounds):
    """Runs the servers and the echo in turns; returns what the table has to say."""
    rates = {"all": [], "one": [], "echo": []}
    cores = {"all": [], "one": []}
    taken = []
    for _ in range(rounds):
        for name, server in (("all", all_devices), ("one", one_device)):
            (result,), device_bytes = server.load((*flags, *FORWARD))
            rates[name].append(result["requests_per_s"])
            cores[name].append(result["server"]["cpu_seconds"] / result["elapsed_seconds"])
            if name == "all":
                taken.append(shares(device_bytes))
        rates["echo"].append(echoes.load((*flags, *FORWARD)))
    return {"requests_per_s": rates, "server_cores": {name: summary.median(values) for name, values in cores.items()},
            "ratio": summary.ratio(rates["all"], rates["one"]), "of_echo": summary.ratio(rates["all"], rates["echo"]),
            "shares": taken}


def describe(values):
    """The words for the shares of rounds: the median and the extremes for each device."""
    return ", ".join(
        f"device {device} {summary.median([each[device] for each in values]):.3f} "
        f"({min(each[device] for each in values):.3f} - {max(each[device] for each in values):.3f})"
        for device in values[0])


def print_point(title, found):
    """The table's lines for a point."""
    for line in summary.lines("", title, "requests/s", False,
                              {"server": found["requests_per_s"]["all"], "device 0": found["requests_per_s"]["one"],
                               "bare echo": found["requests_per_s"]["echo"]}):
        print(line)
    print(f"      cores of the server: {found['server_cores']['all']:.1f} and {found['server_cores']['one']:.1f}")
    print(f"      bytes: {describe(found['shares'])}", flush=True)


def main():
    """Runs the points and the mixed load; returns the exit code."""
    arguments = parse_arguments()
    facts = machine.facts(arguments.server, arguments.bench)
    for name, fact in facts.items():
        print(f"{name}: {fact}")
    with (GpuServer(arguments) as all_devices, GpuServer(arguments, "--devices=0") as one_device,
          Echoes(arguments) as echoes):
        try:
            for server in (all_devices, one_device, echoes):
                server.wait_ready()
        except contestants.Failure as failure:
            if "CUDA was asked for" not in str(failure):
                raise
            print(f"skipped: {failure}")
            return SKIPPED
        devices = list(all_devices.device_bytes())
        if len(devices) < 2:
            print(f"skipped: two CUDA devices are needed, and these are there: {', '.join(devices)}")
            return SKIPPED
        print(subprocess.run([arguments.client, "status", f"--server={all_devices.address}"], capture_output=True, text=True,
                             check=True, timeout=60).stdout, flush=True)
        table = {"facts": facts, "points": {}}
        for title, flags in POINTS.items():
            table["points"][title] = measure_point(all_devices, one_device, echoes, flags, arguments.rounds)
            print_point(title, table["points"][title])
        mixed = [shares(all_devices.load(MIXED, BESIDE)[1]) for _ in range(arguments.rounds)]
        table["mixed"] = mixed
        print(f"64 KiB and 4 MiB, forward, and backward beside it\n      bytes: {describe(mixed)}")
    if arguments.json:
        with open(arguments.json, "w", encoding="utf-8") as file:
            json.dump(table, file, indent=2)
    return 0


if __name__ == "__main__":
    sys.exit(main())
