#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
#
# Measures the server's wire at the points of the table, beside the bare echo and, if there is one, the rival: runs that
# take turns on one machine, medians over rounds. Prints the table, and writes JSON.
#
#   wire_points.py --bench=bin/swiglu-bench --server_program=bin/swiglu-server --points=a,b,c,d,e,h --json=table.json
import argparse
import contextlib
import json
import signal
import sys

import contestants
import machine
import points
import summary

ECHO_THREADS = (1, 2, 4, 8)


def parse_arguments():
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bench", required=True, help="the program swiglu-bench")
    parser.add_argument("--server_program", required=True, help="the program swiglu-server")
    parser.add_argument("--server_flag", action="append", default=[], help="a flag for the server; may be repeated")
    parser.add_argument("--other_program", help="another swiglu-server to compare with, an older one perhaps")
    parser.add_argument("--rival", help="a folder with the rival, whose ./run serves on 127.0.0.1:$PORT")
    parser.add_argument("--points", default="a,b,c,d,e,h", help="of " + ",".join(points.NAMES))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--duration", default="2s", help="of each run")
    parser.add_argument("--requests", type=int, help="end each run after so many requests, not by --duration")
    parser.add_argument("--warm_up", default="500ms", help="before each run")
    parser.add_argument("--json", help="the file to write")
    arguments = parser.parse_args()
    unknown = set(arguments.points.split(",")) - set(points.NAMES) - set(points.POINTS)
    if unknown:
        parser.error(f"no such point: {', '.join(sorted(unknown))}")
    if arguments.rounds < 1:
        parser.error("--rounds takes 1 or more")
    return arguments


def echo_threads(cores):
    """The numbers of threads that are tried, up to the cores and a step beyond."""
    return [threads for threads in ECHO_THREADS if threads <= max(4, cores)]


class PointRun:
    """The measurement of one point."""

    def __init__(self, point, arguments):
        self._point = point
        self._arguments = arguments
        end = f"--requests={arguments.requests}" if arguments.requests else f"--duration={arguments.duration}"
        self._length = point.length or (f"--warm_up={arguments.warm_up}", end)

    def run(self):
        """Returns the results of every contestant, a list with one entry for each round; None stands for a failure."""
        with contextlib.ExitStack() as stack:
            flags = [*self._arguments.server_flag, *self._point.server_flags]
            running = {"server": stack.enter_context(contestants.start_server(self._arguments.server_program, flags))}
            if self._arguments.other_program:
                running["other"] = stack.enter_context(
                    contestants.start_server(self._arguments.other_program, flags, "other"))
            if self._point.echo_bytes:
                running["echo"] = stack.enter_context(self._best_echo())
            if self._arguments.rival:
                running["rival"] = stack.enter_context(contestants.start_rival(self._arguments.rival))
            for contestant in running.values():
                contestants.wait_ready(self._arguments.bench, contestant)
            results = {name: [] for name in running}
            for _ in range(self._arguments.rounds):
                for name, contestant in running.items():
                    results[name].append(self._try(contestant))
            return {running[name].name: rounds for name, rounds in results.items()}

    def _best_echo(self):
        """Starts the echo with the number of threads that does best here."""
        metric = self._point.metrics[0]

        def worth(threads):
            with contestants.start_echo(self._arguments.bench, self._point.echo_bytes, threads) as echo:
                contestants.wait_ready(self._arguments.bench, echo)
                return metric.worth(self._load(echo, self._point.probe_length or self._length))

        best = max(echo_threads(machine.cores()), key=worth)
        return contestants.start_echo(self._arguments.bench, self._point.echo_bytes, best)

    def _try(self, contestant):
        """One run; a contestant that cannot do it fails this point, not the table."""
        try:
            return self._load(contestant, self._length)
        except contestants.Failure as failure:
            print(f"{contestant.name}: {failure}", file=sys.stderr)
            return None

    def _load(self, contestant, length):
        is_echo = contestant.name.startswith("echo")
        flags = [*(self._point.echo_flags if is_echo and self._point.echo_flags else self._point.flags), *length]
        if contestant.name == "rival":
            flags += self._point.rival_flags
        with contextlib.ExitStack() as stack:
            beside = None
            if self._point.beside:
                beside = contestants.Load(self._arguments.bench, contestant,
                                          [*self._point.beside, "--warm_up=0", "--duration=1h"])
                stack.callback(beside.stop)
            load = contestants.Load(self._arguments.bench, contestant, flags)
            stack.callback(load.stop)
            result = load.result()
            if beside:
                beside.check_runs()
            return result


def rounds_of(metric, results):
    """The metric in every round of every contestant; a run with errors counts as failed."""
    def read(result):
        return None if result is None or result["errors"] else metric.read(result)

    return {name: [read(result) for result in rounds] for name, rounds in results.items()}


def measure(arguments):
    """Measures every point that was asked for, prints each as soon as it is there, and returns all."""
    names = dict.fromkeys(name for asked in arguments.points.split(",") for name in points.NAMES.get(asked, (asked,)))
    table = {"machine": machine.facts(arguments.server_program, arguments.bench, arguments.other_program), "rounds": arguments.rounds,
             "server_flags": arguments.server_flag, "points": {}}
    for fact, value in table["machine"].items():
        print(f"{fact:<10} {value}")
    length = f"{arguments.requests} requests" if arguments.requests else arguments.duration
    print(f"rounds     {arguments.rounds}, of {length}; median (least - most)\n", flush=True)
    for name in names:
        point = points.POINTS[name]
        if point.memory_gib > machine.available_gib():
            print(f"{name:<3} {point.title}: skipped, it takes {point.memory_gib} GiB of memory\n", flush=True)
            continue
        results = PointRun(point, arguments).run()
        entry = table["points"][name] = {"title": point.title, "server_flags": list(point.server_flags), "metrics": [],
                                         "runs": results}
        for metric in point.metrics:
            values = rounds_of(metric, results)
            entry["metrics"].append({
                "unit": metric.unit, "less_is_better": metric.less_is_better, "values": values,
                "median": {who: summary.median(rounds) for who, rounds in values.items()},
                "server_to": {who: summary.ratio(values["server"], rounds)
                              for who, rounds in values.items() if who != "server"}})
            print("\n".join(summary.lines(name, point.title, metric.unit, metric.less_is_better, values)), flush=True)
        print(flush=True)
    return table


def main():
    """Runs the table. Exit code 1 if a program cannot be used, or the server failed at a point."""
    arguments = parse_arguments()
    # As an exception, so that every block that has a process ends it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    try:
        table = measure(arguments)
    except contestants.Failure as failure:
        sys.exit(f"wire_points: {failure}")
    if arguments.json:
        with open(arguments.json, "w") as file:
            json.dump(table, file, indent=1)
    medians = [metric["median"]["server"] for point in table["points"].values() for metric in point["metrics"]]
    sys.exit(1 if None in medians else 0)


if __name__ == "__main__":
    main()
