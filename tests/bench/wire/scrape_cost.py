#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
#
# What reading the metrics page costs while the server works, and what it costs the server: runs of one load with nobody
# reading and with readings at a steady pace, in turns on one machine. Prints a line for each run and judges nothing.
#
#   scrape_cost.py --bench=bin/swiglu-bench --server_program=bin/swiglu-server [--server_flag=...] [--every_ms=100]
import argparse
import http.client
import statistics
import threading
import time

import contestants
import machine


def parse_arguments():
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bench", required=True, help="the program swiglu-bench")
    parser.add_argument("--server_program", required=True, help="the program swiglu-server")
    parser.add_argument("--server_flag", action="append", default=[], help="a flag for the server; may be repeated")
    parser.add_argument("--load_flag", action="append", default=[], help="a flag for the load; may be repeated")
    parser.add_argument("--every_ms", type=int, default=100, help="from one reading to the next")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--duration", default="5s", help="of each run")
    return parser.parse_args()


def read_page(port):
    """Reads the page once; returns how long it took in milliseconds."""
    start = time.perf_counter()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request("GET", "/metrics")
        connection.getresponse().read()
    finally:
        connection.close()
    return (time.perf_counter() - start) * 1e3


class Reader(threading.Thread):
    """Reads the page at a steady pace until it is told to end."""

    def __init__(self, port, every_ms):
        super().__init__()
        self._port = port
        self._every_s = every_ms / 1e3
        self._ending = threading.Event()
        self.times_ms = []

    def run(self):
        while not self._ending.wait(self._every_s):
            self.times_ms.append(read_page(self._port))

    def end(self):
        """Ends the readings and returns their times in order of length."""
        self._ending.set()
        self.join()
        return sorted(self.times_ms)


def describe_times(times_ms):
    """A line's words about the readings."""
    p99 = times_ms[min(len(times_ms) - 1, int(len(times_ms) * 0.99))]
    return f"{len(times_ms)} readings, ms: median {statistics.median(times_ms):.2f}  p99 {p99:.2f}  most {times_ms[-1]:.2f}"


def describe_load(result):
    """A line's words about the load."""
    latency = result["latency_ms"]
    return (f"{result['requests_per_s']:.0f} requests/s, ms: p50 {latency['p50']:.3f}  p99 {latency['p99']:.3f}  "
            f"p99.9 {latency['p99.9']:.3f}")


def main():
    """Runs the rounds."""
    arguments = parse_arguments()
    for name, fact in machine.facts(arguments.server_program, arguments.bench).items():
        print(f"{name}: {fact}")
    port = contestants.free_port()
    flags = [*arguments.server_flag, f"--metrics_address=127.0.0.1:{port}"]
    load_flags = [f"--duration={arguments.duration}", *arguments.load_flag]
    with contestants.start_server(arguments.server_program, flags) as server:
        contestants.wait_ready(arguments.bench, server)
        print(f"idle             {describe_times(sorted(read_page(port) for _ in range(50)))}")
        for _ in range(arguments.rounds):
            result = contestants.Load(arguments.bench, server, load_flags).result()
            print(f"nobody reads     {describe_load(result)}")
            reader = Reader(port, arguments.every_ms)
            reader.start()
            try:
                result = contestants.Load(arguments.bench, server, load_flags).result()
            finally:
                times_ms = reader.end()
            print(f"every {arguments.every_ms:4} ms    {describe_load(result)}; {describe_times(times_ms)}")


if __name__ == "__main__":
    main()
