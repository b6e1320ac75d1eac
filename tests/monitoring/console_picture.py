#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
#
# Makes docs/console.png: two servers under a light load that changes from minute to minute, with bursts that are more than they can
# hold and callers that make mistakes, and a Prometheus that scrapes them every 15 s, as deploy/prometheus/prometheus.yml has it; then
# Chromium's picture of the console page. No test, for it takes the hour that the page shows. A tenth of a core.
#
#   PYTHONPATH=tests/wire build/ci/tests/monitoring/packages/bin/python tests/monitoring/console_picture.py \
#     --server=build/ci/bin/swiglu-server --bench=build/ci/bin/swiglu-bench --prometheus=build/ci/prometheus \
#     --picture=docs/console.png
import argparse
import contextlib
import math
import pathlib
import subprocess
import tempfile
import time

import browser
import mixed_load
import prometheus_programs
import server_process
from prometheus_process import Prometheus

# Minutes in which a burst asks for more than the memory budget has, and how often callers make mistakes.
BURSTS = (14, 37)
MISTAKES_EVERY = 9


def rate(replica, minute):
    """Requests per second that a replica gets in that minute: slow waves, and more of them for twelve minutes."""
    wave = 14 + 9 * math.sin(2 * math.pi * (minute + 11 * replica) / 34)
    return wave * (1.6 if 40 <= minute < 52 else 1) * (1 if replica == 0 else 0.7)


def load(server, replica, minute):
    """Starts one minute of load; returns its process."""
    model = mixed_load.MODELS[(minute + replica) % len(mixed_load.MODELS)]
    return subprocess.Popen(
        [server_process.BENCH, f"--server={server.address}", f"--model={model}", "--request_bytes=16KiB*20,64KiB*10,256KiB*3,1MiB",
         "--connections=3", f"--rate={rate(replica, minute):.1f}", "--duration=59s", "--warm_up=0"],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def run_minute(servers, minute):
    """One minute of everything."""
    running = [load(server, replica, minute) for replica, server in enumerate(servers)]
    if minute in BURSTS:
        mixed_load.overload(servers[0], "400ms")
    if minute % MISTAKES_EVERY == 4:
        mixed_load.make_mistakes(servers[minute % len(servers)])
    for process in running:
        process.wait()


def main():
    """Everything; the picture is drawn at the end."""
    parser = argparse.ArgumentParser()
    for flag in ("server", "bench", "prometheus", "picture"):
        parser.add_argument(f"--{flag}", required=True)
    parser.add_argument("--minutes", type=int, default=68)
    own = parser.parse_args()
    server_process.SERVER, server_process.BENCH = own.server, own.bench
    program, _ = prometheus_programs.fetch(own.prometheus)
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        servers = [stack.enter_context(server_process.Server(*mixed_load.SERVER_FLAGS)) for _ in range(2)]
        addresses = [f"127.0.0.1:{server.metrics_port}" for server in servers]
        prometheus = stack.enter_context(Prometheus(program, folder, addresses, "15s"))
        page = f"http://{prometheus.address}/consoles/swiglu.html"
        print(page, flush=True)
        end = time.monotonic() + 60 * own.minutes
        minute = 0
        while time.monotonic() < end:
            run_minute(servers, minute)
            minute += 1
        browser.draw(page, pathlib.Path(own.picture), folder)


if __name__ == "__main__":
    main()
